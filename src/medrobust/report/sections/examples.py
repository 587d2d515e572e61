"""Examples: images before and after the attack, and the change."""

from __future__ import annotations

from medrobust.report.examples import examples
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "examples", "Examples", 100, ("robustness",)


def build(f: Findings) -> Content:
    return Content({"examples": examples(f)})
