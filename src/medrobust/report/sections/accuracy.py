"""Accuracy against epsilon, an attack a line."""

from __future__ import annotations

from medrobust.report import charts, tables
from medrobust.report.findings import Findings, in_doubt
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.words import percent, with_interval

ANCHOR, TITLE, ORDER, NEEDS = "accuracy", "Accuracy under attack", 20, ("robustness",)
COMMANDS = ("audit", "certify")


def build(f: Findings) -> Content:
    table = tables.accuracy(f)
    drawn = any(f.run.curve(a) for a in f.run.measured)
    figures = {"curves": charts.accuracy_curves(f, curves_alt(f))} if drawn else {}
    grades = tables.grades(f)
    return Content({"accuracy": table, "grades": grades}, [t for t in (table, grades) if t], figures)


def curves_alt(f: Findings) -> str:
    """The accuracy figure in words: where each line starts and ends."""
    parts = ["Accuracy against ε, one line an attack, with 95 % intervals."]
    if f.clean is not None:
        parts.append(f"All start at {percent(f.clean.value)} without attack.")
    for attack in f.run.measured + f.run.controls:
        rows = [r for r in f.run.curve(attack) if r.value is not None]
        if rows:
            mark = " (inconclusive)" if in_doubt(f, attack) else ""
            parts.append(f"{f.run.title(attack)}{mark}: {percent(rows[-1].value)} at {short_size(f, rows[-1].eps)}.")
    for attack in f.run.probes:
        parts += [
            f"{f.run.title(attack)}, a black-box probe: {with_interval(r)} at {short_size(f, r.eps)}."
            for r in f.run.curve(attack)
        ]
    return " ".join(parts)
