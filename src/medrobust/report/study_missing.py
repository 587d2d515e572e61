"""What a study lacks: cells that failed, grouped by reason, and tables that got no row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CELLS_PER_REASON = 20
"""Cells listed for one reason; the rest is counted, and all of them lie in the run folder's failed/."""

NOT_BEGUN = "not begun, because a cell that they need failed"


def missing_lines(results: Mapping[str, Any]) -> list[str]:
    """Lines that say which cells of a study are missing and why; empty where every cell is done."""
    cells = results["cells"]
    if cells["done"] == cells["all"]:
        return []
    lines = [f"{cells['all'] - cells['done']} of {cells['all']} cells are missing: {_counts(cells)}"]
    reasons: dict[str, list[Mapping[str, Any]]] = {}
    for cell in results["failed"]:
        reasons.setdefault(NOT_BEGUN if cell.get("cause") else cell["error"], []).append(cell)
    for reason, group in reasons.items():
        lines.append(f"{len(group)} x {reason}")
        for cell in group[:CELLS_PER_REASON]:
            cause = f" (needs {cell['cause']})" if cell.get("cause") else ""
            lines.append(f"  {cell_name(cell)}{cause}")
        if len(group) > CELLS_PER_REASON:
            lines.append(f"  and {len(group) - CELLS_PER_REASON} more")
    return lines


def missing_line(results: Mapping[str, Any]) -> str:
    """One line: how many cells are missing; empty where every cell is done."""
    return next(iter(missing_lines(results)), "")


def cell_name(cell: Mapping[str, Any]) -> str:
    """Part, task and labels of a cell, as one line."""
    return " ".join([str(cell["part"]), str(cell["task"]), *(str(v) for v in cell["labels"].values())])


def _counts(cells: Mapping[str, int]) -> str:
    parts = [f"{cells['failed']} failed"] if cells["failed"] else []
    return ", ".join([*parts, f"{cells['left']} not computed yet"] if cells["left"] else parts)
