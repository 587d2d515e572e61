"""Measures of untouched images, a classifier a column."""

from __future__ import annotations

from medrobust.report import explanation_figures as figures
from medrobust.report import explanation_tables as tables
from medrobust.report import explanation_words as words
from medrobust.report.explained import explained, pairs
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "measures", "Measures", 10, ("explanation",)
COMMANDS = ("explain",)


def build(f: Findings) -> Content | None:
    classifiers = explained(f.run)
    if not classifiers:
        return None
    table = tables.measures(classifiers, pairs(f.run))
    values = {"content": table, "medians": words.medians([e.info.n for e in classifiers])}
    return Content(values, [table], {"measures": figures.measures(classifiers)})
