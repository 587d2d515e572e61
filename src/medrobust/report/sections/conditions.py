"""The exact conditions under which the numbers hold."""

from __future__ import annotations

from medrobust.report import conditions
from medrobust.report.findings import Findings
from medrobust.report.section import EVERY_COMMAND, Content

ANCHOR, TITLE, ORDER = "conditions", "Exact conditions", 120
FOLDED = True
COMMANDS = (EVERY_COMMAND,)


def build(f: Findings) -> Content:
    return Content({"facts": conditions.groups(f)})
