"""What an audit found, in sentences: a paragraph a question."""

from __future__ import annotations

from medrobust.report import plain
from medrobust.report.findings import Findings
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER = "sentences", "The findings in sentences", 5


def build(f: Findings) -> Content:
    return Content({"paragraphs": plain.sentences(f)})
