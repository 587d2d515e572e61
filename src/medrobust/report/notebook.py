"""What a notebook shows of a run: verdict, facts, and the accuracy at each size."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from medrobust.report import compared_tables, section, tables
from medrobust.report.compared import compared
from medrobust.report.findings import Findings
from medrobust.report.first_page import first_page, heading


def html(f: Findings, page: Path | None) -> str:
    """page: the report, which is linked; None where there is no file of it."""
    accuracy = tables.accuracy(f) if f.run.conditions.compared is None else compared_tables.accuracy(compared(f))
    text = (files("medrobust.report") / "notebook.html").read_text(encoding="utf-8")
    values = {"heading": heading(f), "criteria": f.run.criteria, "page": first_page(f), "accuracy": accuracy}
    link = None if page is None else page.resolve().as_uri()
    return section.rendered(text, {**values, "file": page, "link": link})
