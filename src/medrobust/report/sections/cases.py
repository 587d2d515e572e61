"""What an attack means for patients, every class or finding, where the first page has no room for all."""

from __future__ import annotations

from medrobust.report import patients
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "cases", "Missed and invented, each by itself", 6, ("robustness",)
FOLDED = True


def build(f: Findings) -> Content | list[Content]:
    lines = patients.lines(f)
    if len(lines) <= patients.MOST:
        return []
    table = patients.table(f, lines, "tab:cases-all", most=len(lines))
    return Content({"every": table}, [table])
