"""Sanity checks: tests of the audit itself."""

from __future__ import annotations

from medrobust.report import check_lines
from medrobust.report.findings import Findings
from medrobust.report.section import EVERY_COMMAND, Content
from medrobust.report.tables import Table, TableCell

ANCHOR, TITLE, ORDER, NEEDS = "checks", "Sanity checks", 110, ("sanity", "blackbox", "headline")
FOLDED = True
COMMANDS = (EVERY_COMMAND,)
RESULT = {
    True: TableCell("passed", tone="pass"),
    False: TableCell("failed", tone="failed"),
    None: TableCell("not asked", tone="open"),
}


def build(f: Findings) -> Content:
    lines, counted = check_lines.lines(f.run.checks, f.run.title), check_lines.counted(f.run.checks)
    caption = f"{counted.text}; a line holds all attacks with the same outcome."
    head = [TableCell(t) for t in ("Check", "Result", "Attack", "Seen", "If it fails")]
    body = [
        [TableCell(x.name), RESULT[x.passed], *map(TableCell, (x.attacks, "; ".join(x.details), x.consequence))]
        for x in lines
    ]
    tables = [Table(caption, head, body, "tab:checks", (0.2, 0.09, 0.12, 0.28, 0.24))] if lines else []
    return Content({"checks": next(iter(tables), None)}, tables)
