"""How simple each layer's picture of an image is, before and after the attack."""

from __future__ import annotations

from medrobust.report import explanation_figures as figures
from medrobust.report import explanation_tables as tables
from medrobust.report import explanation_words as words
from medrobust.report.explained import explained
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "layers", "How simple the network's picture is", 40, ("explanation",)
COMMANDS = ("explain",)


def build(f: Findings) -> Content | None:
    classifiers = explained(f.run)
    if not classifiers:
        return None
    table = tables.layers(classifiers)
    values = {"content": table, "medians": words.medians([e.info.n for e in classifiers])}
    return Content(values, [table], {"layers": figures.layers(classifiers)})
