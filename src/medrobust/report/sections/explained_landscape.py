"""The loss around an image: along each direction, over the plane of two, and of single images."""

from __future__ import annotations

from medrobust.report import explanation_figures as figures
from medrobust.report import explanation_tables as tables
from medrobust.report import explanation_words as words
from medrobust.report.explained import explained
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "landscape", "The loss around an image", 50, ("explanation",)
COMMANDS = ("explain",)


def build(f: Findings) -> Content | None:
    classifiers = explained(f.run)
    if not classifiers:
        return None
    table, surfaces = tables.landscape(classifiers), words.medians([e.info.surfaces for e in classifiers])
    drawn = {"profile": figures.profile(classifiers), "contours": figures.contours(classifiers)}
    drawn |= {"surface": figures.surface(classifiers), "single": figures.single(classifiers)}
    return Content({"content": table, "surfaces": surfaces}, [table], drawn)
