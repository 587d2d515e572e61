"""Which pixels the loss depends on: a gallery of each classifier, and how the gradient is spread."""

from __future__ import annotations

from medrobust.report import explanation_figures as figures
from medrobust.report import explanation_tables as tables
from medrobust.report.explained import explained
from medrobust.report.explanation import gallery
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "saliency", "Which pixels the loss depends on", 20, ("explanation",)
COMMANDS = ("explain",)


def build(f: Findings) -> Content | None:
    classifiers = explained(f.run)
    if not classifiers:
        return None
    drawn = {f"gallery-{k}": svg for k, svg in enumerate(figures.galleries(classifiers))}
    table, captions = tables.saliency(classifiers), [gallery(e) for e in classifiers if "gallery.clean" in e.arrays]
    return Content({"content": table, "captions": captions}, [table], drawn)
