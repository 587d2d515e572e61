"""What attacks do to each finding, in sentences: for a classifier of several findings an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from medrobust.report.comparison import Relation, Share, in_words, numbers, out_of, relation
from medrobust.report.findings import Findings, Verdict
from medrobust.report.paragraph import Paragraph
from medrobust.report.sizes import change, short_size, size_words, visibility
from medrobust.report.words import listing, number
from medrobust.results import Kind, Row, among

ATTACK = "findings"
"""Stands as the attack in the rows."""
HIDE, INVENT, ANY = "hide", "invent", "any"
MOST_NAMED = 3
"""Findings that the first page names; the table holds all."""


@dataclass(frozen=True)
class TurnedFinding:
    """One finding at one size. turned: whatever else changes; alone: and nothing else does; noise: the control."""

    name: str
    turned: Share
    alone: Share | None
    noise: Share | None


def row(f: Findings, metric: str, goal: str, eps: float | None = None, **more: Any) -> Row | None:
    """Of one goal; more: class_name, and alone=True for nothing else."""
    return f.run.find(Kind.FINDING, metric, ATTACK, eps, goal=goal, **more)


def size(f: Findings) -> float | None:
    """The eps at which numbers of findings are given."""
    return f.size_of_sets


def half(f: Findings) -> float | None:
    """The smallest tested eps at which half of the images get another set of findings."""
    rows = among(f.run.rows, kind=Kind.FINDING, metric="success", goal=ANY)
    return min((r.eps for r in rows if r.value is not None and r.value >= 0.5), default=None)


def any_change(f: Findings) -> str:
    """In how many images the set of findings becomes another, as the start of a page; empty where it is not known."""
    eps = size(f)
    shares = None if eps is None else Share.of(row(f, "success", ANY, eps))
    if eps is None or shares is None:
        return ""
    text = f"{change(f, eps)} – {visibility(f, eps)} – gives {in_words(shares)} another set of findings"
    if (control := noise(f, ANY, eps)) is not None:
        text += f"; random noise of that size does so in {in_words(control, '')}"
        text += "" if relation(shares, control) is Relation.ABOVE else ", which is not shown to be less"
    return text + "."


def noise(f: Findings, goal: str, eps: float, **more: Any) -> Share | None:
    """The share that random noise of that size turns."""
    return Share.of(f.run.find(Kind.CONTROL, "success", "noise", eps, goal=goal, **more))


def turned(f: Findings, goal: str, eps: float) -> list[TurnedFinding]:
    """Every finding that could be hidden or invented, the most often turned first."""
    out = []
    for name in f.run.conditions.classes:
        share = Share.of(row(f, "success", goal, eps, class_name=name))
        if share is not None:
            alone = Share.of(row(f, "success", goal, eps, class_name=name, alone=True))
            out.append(TurnedFinding(name, share, alone, noise(f, goal, eps, class_name=name)))
    return sorted(out, key=lambda t: -t.turned.value)


def paragraphs(f: Findings) -> list[Paragraph]:
    """For the first page: findings that disappear, findings that appear, and whether the set stays plausible."""
    eps = size(f)
    if f.run.conditions.findings is None or eps is None:
        return [Paragraph("Findings that change", "What happens to single findings was not measured in this run.")]
    warn = f.verdict is Verdict.INCONCLUSIVE
    caution = "Inconclusive. " if warn else ""
    out = [
        Paragraph(title, caution + text, warn)
        for title, goal in (("Findings that disappear", HIDE), ("Findings that appear", INVENT))
        if (text := _most_turned(f, goal, eps))
    ]
    if text := at_risk(f, eps):
        out.append(Paragraph("Weighted by risk", caution + text, warn))
    if text := plausible(f):
        out.append(Paragraph("Would the new answer look odd", caution + text, warn))
    return out


def _most_turned(f: Findings, goal: str, eps: float) -> str:
    every = turned(f, goal, eps)
    if not every:
        return ""
    text = " ".join(sentence(f, t, goal, eps if i == 0 else None) for i, t in enumerate(every[:MOST_NAMED]))
    if rest := every[MOST_NAMED:]:
        text += " Of the others: " + listing([f"{t.name} ({numbers(t.turned)})" for t in rest]) + "."
    return text


def sentence(f: Findings, t: TurnedFinding, goal: str, eps: float | None) -> str:
    """ "Of 100 images with effusion in which it found effusion, 93 lose it after a change of one grey level …".

    eps: None where the size was said before.
    """
    part, whole = out_of(t.turned)
    kind = "synthetic image" if f.run.conditions.synthetic else "image"
    images = f"{whole} {kind}{'' if whole == '1' else 's'}"
    name = f.run.labelled(t.name)
    one = part in ("none", "1", "fewer than 1")
    when = "after such a change" if eps is None else f"after a change of at most {size_words(f, eps)} in each pixel"
    if f.run.conditions.norm != "Linf" and eps is not None:
        when = f"after a change of {size_words(f, eps)}"
    if goal == HIDE:
        text = f"Of {images} with {name} in which it reported {name}, {part} {'loses' if one else 'lose'} it {when}"
    else:
        text = f"Of {images} without {name} in which it reported none, {part} "
        text += f"{'shows' if one else 'show'} it {when}"
    text += f" ({numbers(t.turned)})"
    if t.alone is not None and t.turned.hits:
        every = "it" if t.turned.hits == 1 else "all of them"
        text += f"; in {every if t.alone.hits == t.turned.hits else out_of(t.alone)[0]} nothing else changes "
        text += f"({numbers(t.alone)})"
    if t.noise is not None:
        text += f"; random noise of that size does it in {in_words(t.noise, '')}"
        text += "" if relation(t.turned, t.noise) is Relation.ABOVE else ", which is not shown to be less"
    return text + "."


def at_risk(f: Findings, eps: float) -> str:
    """The one number that the user's table of risks gives; empty without one."""
    info = f.run.conditions.findings
    lost, alone = (Share.of(f.run.find(Kind.FINDING, "risk", ATTACK, eps, **more)) for more in ({}, {"alone": True}))
    if info is None or info.risk is None or lost is None:
        return ""
    weights = info.risk
    most = sorted(weights, key=lambda name: -max(weights[name]))[:MOST_NAMED]
    text = f"With each finding weighted by the given table of risks, {numbers(lost)}, of what is at stake is lost "
    text += f"after a change of {short_size(f, eps)}"
    if alone is not None:
        text += f"; {numbers(alone)}, where nothing else may change"
    each = [f"{name} ({number(weights[name][0])} and {number(weights[name][1])})" for name in most]
    return text + f". The heaviest, when missed and when invented: {listing(each)}."


def plausible(f: Findings) -> str:
    """How many findings change, and whether the new sets occur."""
    info = f.run.conditions.findings
    several = row(f, "findings_changed", "any")
    after, before = (Share.of(row(f, f"occurs_{when}", "any")) for when in ("after", "before"))
    parts = []
    if several is not None and several.value is not None:
        parts.append(
            f"The smallest change that turns any finding of an image turns {number(several.value)} of them on average."
        )
    if after is not None and info is not None and info.sets:
        text = f"Of the sets of findings that it then reports, {numbers(after)}, occur in the {info.sets_of}"
        text += f"; before it was {numbers(before)}." if before is not None else "."
        parts.append(text + " A set that never occurs gives the attack away.")
    return " ".join(parts)
