"""The first page of `medrobust compare`: which run withstands the attacks better, and at what price."""

from __future__ import annotations

from medrobust.report import compared_advice, compared_tables
from medrobust.report.compared import (
    APART,
    BEFORE,
    UNDER,
    ComparedAudits,
    Difference,
    PairedVerdict,
    compared,
    p_text,
    points,
)
from medrobust.report.compared_tables import GOALS
from medrobust.report.findings import Findings
from medrobust.report.first_page import Fact, FirstPage
from medrobust.report.paragraph import Paragraph
from medrobust.report.sizes import change, short_size
from medrobust.report.words import NOTHING, bounds, count, listing, percent, plural, with_interval
from medrobust.results import Kind, Row

MOST_FINDINGS = 2
"""Findings that the first page names; the table holds all."""


def first_page(f: Findings) -> FirstPage:
    """The primary comparison of every pair, then what it costs and what it rests on."""
    c = compared(f)
    primary = [c.difference(pair, UNDER) for pair in c.pairs]
    apart = [d for d in primary if d.verdict in APART]
    inconclusive = [d for d in primary if d.verdict is PairedVerdict.INCONCLUSIVE]
    title = " ".join(verdict(c, d) for d in primary[:3])
    if len(primary) > 3:
        title = f"{len(apart)} of {len(primary)} pairs are told apart under attack."
    tone = "warn" if inconclusive or not apart else "calm"
    text = f"{change(f, c.info.reference)}: " + "; ".join(accuracy(c, name) for name in c.names) + ". "
    text += " ".join(sentence(c, d) for d in (primary if len(primary) <= 3 else apart))
    return FirstPage(
        title,
        text.strip(),
        tone,
        facts(c),
        paragraphs(c),
        banners(c),
        [compared_tables.sides(c)] if c.few_runs else [],
        "What changed, and whether it is more than chance",
        compared_advice.of(c, primary),
        compared_advice.NOTE,
    )


def verdict(c: ComparedAudits, d: Difference) -> str:
    """In one sentence, of the primary comparison."""
    first, second = c.titles[d.first], c.titles[d.second]
    if d.verdict is PairedVerdict.INCONCLUSIVE:
        return f"Inconclusive: whether {second} withstands attacks better than {first} cannot be told."
    if d.verdict is PairedVerdict.NOT_TOLD_APART:
        return f"{second} is not shown to withstand attacks better or worse than {first}."
    return f"{second} withstands these attacks {d.verdict.value} than {first}."


def accuracy(c: ComparedAudits, name: str) -> str:
    """ "A keeps an accuracy of 62.5 % (51.5–72.3)"."""
    row = c.of_run(Kind.WORST, "accuracy", name, c.info.reference)
    return f"{c.titles[name]} keeps an accuracy of {_share(row)}"


def sentence(c: ComparedAudits, d: Difference) -> str:
    """The difference, its interval and its test; or why it is inconclusive."""
    pair = f"{d.second} less {d.first}"
    if d.verdict is PairedVerdict.INCONCLUSIVE:
        return f"{pair}: inconclusive ({d.row.note})."
    adjusted = f", adjusted for {len(c.pairs)} pairs" if len(c.pairs) > 1 else ""
    return f"{pair}: {d.text}, {p_text(d.p)}{adjusted}, on the same {plural(d.row.n, 'image')}."


def _share(row: Row | None) -> str:
    return with_interval(row) + (", inconclusive" if row is not None and not row.ok else "")


def facts(c: ComparedAudits) -> list[Fact]:
    """A run each, under attack; then the images."""
    out = []
    for name in c.names:
        row, before = (c.of_run(Kind.WORST, "accuracy", name, eps) for eps in (c.info.reference, 0.0))
        value = NOTHING if row is None else percent(row.value)
        note = f"under attack at {short_size(c.f, c.info.reference)}"
        if row is not None and not row.ok:
            note = f"inconclusive, {note}"
        elif row is not None and before is not None:
            note += f" {bounds(row.low, row.high)}; {with_interval(before)} before"
        out.append(Fact(c.titles[name], value, note, row is not None and not row.ok))
    n = c.f.run.conditions
    out.append(Fact("Same images", count(n.n_attacked), f"attacked; {count(n.n_test)} without an attack"))
    return out


def paragraphs(c: ComparedAudits) -> list[Paragraph]:
    out = [Paragraph("Without an attack", *_before(c)), Paragraph("On which images", _images(c))]
    if c.by_finding:
        out.append(Paragraph("Finding by finding", *_findings(c)))
    return [*out, Paragraph("How far to believe this", protocol(c), c.f.few)]


def _before(c: ComparedAudits) -> tuple[str, bool]:
    """Clean accuracy of every run, and how the differences read; whether a run is shown to be worse for it."""
    shares = [f"{c.titles[name]} {_share(c.of_run(Kind.CLEAN, 'accuracy', name))}" for name in c.names]
    differences = [c.difference(pair, BEFORE) for pair in c.shown_pairs]
    readings = [f"{d.second} less {d.first}: {d.verdict.value}" for d in differences]
    text = f"Accuracy on {plural(c.f.run.conditions.n_test or 0, 'test image')}: {'; '.join(shares)}. "
    text += f"{'; '.join(readings)}."
    return text, any(d.verdict is PairedVerdict.WORSE for d in differences)


def _images(c: ComparedAudits) -> str:
    """Where they are listed, and of two runs the difference under attack in each class."""
    text = "changed.csv lists every image on which the runs differ, with its class."
    if len(c.names) != 2 or not c.difference(c.pairs[0], UNDER).row.ok:
        return text
    pair = c.pairs[0]
    rows = {
        name: c.between("sensitivity", pair, c.info.reference, class_name=name) for name in c.f.run.conditions.classes
    }
    parts = [f"{c.f.run.labelled(name)} {points(row)}, n = {row.n}" for name, row in rows.items() if row is not None]
    if not parts:
        return text
    return f"{text} Read correctly under attack, {pair[1]} less {pair[0]}, by class: {'; '.join(parts)}; not adjusted."


def _findings(c: ComparedAudits) -> tuple[str, bool]:
    """Findings under attack that are told apart; whether one of them is shown to be worse."""
    apart = [finding for finding in c.by_finding if finding.difference.verdict in APART]
    text = f"Each was hidden and invented at {short_size(c.f, c.info.reference)}. Of "
    text += f"{plural(len(c.by_finding), 'comparison')}, {count(len(apart)) if apart else 'none'} "
    text += f"{'is' if len(apart) == 1 else 'are'} told apart (Holm's method)"
    parts = [
        f"{c.f.run.labelled(finding.name)}, to {GOALS[finding.goal]}: {d.second} {d.verdict.value} than {d.first} "
        f"({d.text}, n = {d.row.n}, {p_text(d.p)})"
        for finding in apart[:MOST_FINDINGS]
        for d in [finding.difference]
    ]
    text += f": {'; '.join(parts)}" if parts else ""
    text += f"; {len(apart) - MOST_FINDINGS} more in the table" if len(apart) > MOST_FINDINGS else ""
    return text + ".", any(finding.difference.verdict is PairedVerdict.WORSE for finding in apart)


def protocol(c: ComparedAudits) -> str:
    """What is the primary comparison, what is claimed, and what is not adjusted."""
    text = f"Primary: the accuracy under attack at {short_size(c.f, c.info.reference)} "
    text += f"({listing(c.info.attacks)}; for each image whichever needs least), with McNemar's exact test and Tango's "
    text += "interval of the paired difference"
    text += ", images of one patient taken together" if c.info.by_patient else ""
    text += f"; p is adjusted by Holm's method for {len(c.pairs)} pairs" if len(c.pairs) > 1 else ""
    text += (
        ". A difference is claimed only where the interval leaves out 0 and p is below 0.05; runs that are not told "
    )
    text += "apart are not shown to be equal. "
    text += "Findings have their own adjustment; all" if c.by_finding else "All"
    text += " else is secondary and not adjusted: of 20 such intervals of equal runs about one leaves out 0 by "
    text += "chance. It holds for these images and attacks: a stronger attack may leave less of either run. "
    text += f"Only {plural(c.f.run.conditions.n_attacked or 0, 'image')} were attacked: wide intervals. " * c.f.few
    return text + " ".join(c.info.notes)


def banners(c: ComparedAudits) -> list[tuple[str, str]]:
    """What puts a run in doubt."""
    out = [(f"{c.titles[r.name]}: a classifier that guesses", f"It is {r.guesses}.") for r in c.info.runs if r.guesses]
    failed = [(r.name, r.failed) for r in c.info.runs if r.failed]
    return out + [(f"{c.titles[n]}: sanity checks failed", f"{'; '.join(f)}. See its own report.") for n, f in failed]
