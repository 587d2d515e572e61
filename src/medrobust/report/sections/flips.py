"""Which errors the attack makes: flips by direction."""

from __future__ import annotations

from medrobust.report import charts, plain, tables
from medrobust.report.findings import Findings
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.words import percent

ANCHOR, TITLE, ORDER, NEEDS = "flips", "Which errors the attack makes", 40, ("robustness",)
MOST_LINES = 6
"""Directions drawn in the flip figure; the table holds the others."""


def build(f: Findings) -> Content | list[Content]:
    if f.several:
        return []
    table, figures = tables.flips(f), {}
    if f.strongest is not None and f.reference is not None:
        figures = flip_figure(f, f.strongest, f.reference)
    values = {"flips": table, "n_text": tables.n_text, "most_directions": plain.MANY}
    return Content(values, [table] if table else [], figures)


def flip_figure(f: Findings, attack: str, reference: float) -> dict[str, str]:
    """The most frequent directions against eps, for the strongest attack."""
    out: dict[str, str] = {}
    pairs = [(x.source, x.target) for x in f.flips(attack, reference)][:MOST_LINES]
    lines = [(f"{a} → {b}", f.run.curve(attack, "flip", class_name=a, target=b)) for a, b in pairs]
    if lines:
        alt = f"Share of correctly read images turned to another class ({f.name(attack)}), against ε. "
        alt += f"At {short_size(f, reference)}: "
        alt += "; ".join(
            f"{name} {percent(_turned(f, attack, a, b))}" for (name, _), (a, b) in zip(lines, pairs, strict=True)
        )
        out["flips"] = charts.series(f, "flips", "share turned", lines, alt + ".")
    return out


def _turned(f: Findings, attack: str, source: str, target: str) -> float | None:
    row = f.run.at(attack, "flip", f.reference, class_name=source, target=target)
    return None if row is None else row.value
