"""Where the decision comes from: how far Grad-CAM moves, and how maps agree with known lesions."""

from __future__ import annotations

from medrobust.report import explanation_tables as tables
from medrobust.report.explained import explained
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER, NEEDS = "cam", "Where the decision comes from", 30, ("explanation",)
COMMANDS = ("explain",)


def build(f: Findings) -> Content | None:
    classifiers = explained(f.run)
    if not classifiers:
        return None
    of_findings = tables.finding_lesions(classifiers)
    made = [t for t in (tables.cam(classifiers), tables.lesion(classifiers), of_findings) if t is not None]
    return Content({"content": made}, made)
