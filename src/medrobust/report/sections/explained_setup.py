"""What was explained and how, a classifier after the other, and whose idea each measure is."""

from __future__ import annotations

from medrobust.report.explained import explained
from medrobust.report.explanation import setup, sources
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "setup", "What was explained, and how", 70, ("explanation",)
COMMANDS = ("explain",)


def build(f: Findings) -> Content:
    classifiers = explained(f.run)
    return Content(
        {"content": [(e.name, setup(e), e.info.notes) for e in classifiers], "sources": sources(classifiers)}
    )
