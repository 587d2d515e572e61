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
    found = explained(f.run)
    if not found:
        return None
    table, surfaces = tables.landscape(found), words.medians([e.info.surfaces for e in found])
    drawn = {"profile": figures.profile(found), "contours": figures.contours(found)}
    drawn |= {"surface": figures.surface(found), "single": figures.single(found)}
    return Content({"content": table, "surfaces": surfaces}, [table], drawn)
