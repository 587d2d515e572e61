"""The first page of `medrobust compare`: which run withstands the attacks better, and at what price."""

from __future__ import annotations

from medrobust.report.compared import BEFORE, UNDER, ComparedAudits, Difference, PairedVerdict, compared, p_text, points
from medrobust.report.findings import Findings
from medrobust.report.first_page import Fact, FirstPage
from medrobust.report.paragraph import Paragraph
from medrobust.report.sizes import change, short_size
from medrobust.report.words import NOTHING, bounds, count, listing, percent, plural, with_interval
from medrobust.results import Kind, Row


def first_page(f: Findings) -> FirstPage:
    """The primary comparison of every pair, then what it costs and what it rests on."""
    c = compared(f)
    primary = [c.difference(pair, UNDER) for pair in c.pairs]
    apart = [d for d in primary if d.verdict in (PairedVerdict.BETTER, PairedVerdict.WORSE)]
    inconclusive = [d for d in primary if d.verdict is PairedVerdict.INCONCLUSIVE]
    title = " ".join(verdict(c, d) for d in primary[:3])
    if len(primary) > 3:
        title = f"{len(apart)} of {len(primary)} pairs are told apart under attack."
    tone = "warn" if inconclusive or not apart else "calm"
    text = f"{change(f, c.info.reference)}: " + "; ".join(accuracy(c, name) for name in c.names) + ". "
    text += " ".join(sentence(c, d) for d in (primary if len(primary) <= 3 else apart))
    return FirstPage(title, text.strip(), tone, facts(c), paragraphs(c, primary), banners(c))


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


def paragraphs(c: ComparedAudits, primary: list[Difference]) -> list[Paragraph]:
    out = [Paragraph("Without an attack", *_before(c))]
    sides = [_changed(d) for d in primary[:3] if d.row.value is not None]
    out.append(Paragraph("Which images changed sides", " ".join(sides)))
    if classes := _classes(c):
        out.append(Paragraph("Where the difference lies", classes))
    out.append(Paragraph("How it was compared", protocol(c)))
    n = c.f.run.conditions.n_attacked or 0
    text = "A difference holds for these images and these attacks: both were attacked alike, and a stronger attack may "
    text += "leave less of either. Differences are claimed only where the interval leaves out 0 and p is below 0.05; "
    text += "runs that are not told apart are not shown to be equal."
    text += f" Only {plural(n, 'image')} were attacked: wide intervals." if c.f.few else ""
    return [*out, Paragraph("How far to believe this", text, c.f.few)]


def _before(c: ComparedAudits) -> tuple[str, bool]:
    """Clean accuracy of every run, and the differences; whether a run is shown to be worse for it."""
    shares = [f"{c.titles[name]} {_share(c.of_run(Kind.CLEAN, 'accuracy', name))}" for name in c.names]
    n = c.f.run.conditions.n_test or 0
    text = f"On {plural(n, 'test image')} without an attack: {'; '.join(shares)}."
    warn = False
    for pair in c.shown_pairs:
        d = c.difference(pair, BEFORE)
        text += f" {d.second} less {d.first}: "
        if d.verdict is PairedVerdict.INCONCLUSIVE:
            text += f"inconclusive ({d.row.note})."
            continue
        text += f"{d.text}, {p_text(d.p)}: {d.verdict.value}."
        warn |= d.verdict is PairedVerdict.WORSE
    return text, warn


def _changed(d: Difference) -> str:
    if d.gained is None or d.lost is None:
        return ""
    text = f"Of {plural(d.row.n, 'attacked image')}, {count(d.gained)} {'is' if d.gained == 1 else 'are'} held by "
    text += f"{d.second} alone and {count(d.lost)} by {d.first} alone"
    return text + ("." if d.row.ok else "; this proves nothing while a side is inconclusive.")


def _classes(c: ComparedAudits) -> str:
    """Of two runs the difference under attack in each class."""
    if len(c.names) != 2 or not c.difference(c.pairs[0], UNDER).row.ok:
        return ""
    pair = c.pairs[0]
    rows = {
        name: c.between("sensitivity", pair, c.info.reference, class_name=name) for name in c.f.run.conditions.classes
    }
    parts = [f"{c.f.run.labelled(name)} {points(row)}, n = {row.n}" for name, row in rows.items() if row is not None]
    if not parts:
        return ""
    return f"Read correctly under attack, {pair[1]} less {pair[0]}, by class: {'; '.join(parts)}. Not adjusted."


def protocol(c: ComparedAudits) -> str:
    """What is the primary comparison, and what is not adjusted."""
    text = f"Primary: the accuracy under attack at {short_size(c.f, c.info.reference)} "
    text += f"({listing(c.info.attacks)}; for each image whichever needs least), with McNemar's exact test and Tango's "
    text += "interval of the paired difference"
    if c.info.by_patient:
        text += ", images of one patient taken together"
    text += f"; with {len(c.pairs)} pairs p is adjusted by Holm's method. " if len(c.pairs) > 1 else ". "
    text += "All else (without an attack, other sizes, classes) is secondary and not adjusted: of 20 such intervals "
    return text + "of equal runs about one leaves out 0 by chance. " + " ".join(c.info.notes)


def banners(c: ComparedAudits) -> list[tuple[str, str]]:
    """What puts a run in doubt."""
    out = [(f"{c.titles[r.name]}: a classifier that guesses", f"It is {r.guesses}.") for r in c.info.runs if r.guesses]
    failed = [(r.name, r.failed) for r in c.info.runs if r.failed]
    return out + [(f"{c.titles[n]}: sanity checks failed", f"{'; '.join(f)}. See its own report.") for n, f in failed]
