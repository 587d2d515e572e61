"""Words used on the page."""

from __future__ import annotations

from medrobust.report.findings import Findings
from medrobust.report.glossary import GLOSSARY
from medrobust.report.section import EVERY_COMMAND, Content

ANCHOR, TITLE, ORDER = "words", "Words used here", 140
FOLDED = True
COMMANDS = (EVERY_COMMAND, "compare", "study")


def build(_: Findings) -> Content:
    return Content({"glossary": GLOSSARY})
