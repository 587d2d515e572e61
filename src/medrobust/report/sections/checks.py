"""Sanity checks: tests of the audit itself."""

from __future__ import annotations

from medrobust.report import check_lines
from medrobust.report.findings import Findings
from medrobust.report.section import EVERY_COMMAND, Content
from medrobust.report.tables import Table, TableCell

ANCHOR, TITLE, ORDER, NEEDS = "checks", "Sanity checks", 110, ("sanity", "blackbox", "headline")
FOLDED = True
COMMANDS = (EVERY_COMMAND,)
RESULT = {True: "passed", False: "failed", None: "not asked"}


def build(f: Findings) -> Content:
    lines, counted = check_lines.lines(f.run.checks, f.run.title), check_lines.counted(f.run.checks)
    caption = f"{counted.text}; a line holds all attacks with the same outcome."
    head = ("Result", "Check", "Attack", "Seen", "If it fails")
    body = [(RESULT[x.passed], x.name, x.attacks, "; ".join(x.details), x.consequence) for x in lines]
    widths = (0.09, 0.2, 0.12, 0.28, 0.24)
    table = Table(
        caption, [TableCell(t) for t in head], [[TableCell(t) for t in row] for row in body], "tab:checks", widths
    )
    return Content({"checks": lines, "caption": caption}, [table] if lines else [])
