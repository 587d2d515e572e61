"""The parts of a study, a section each: curves, tables, and published figures beside measured ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from medrobust.report import study_charts
from medrobust.report.section import Content
from medrobust.report.study_page import StudyFindings
from medrobust.report.study_tables import compared, published_table, sheets

ORDER, COMMANDS = 20, ("study",)


def build(f: StudyFindings) -> list[Content]:
    return [_part(f.results, part) for part in f.results["parts"]]


def _part(results: Mapping[str, Any], part: Mapping[str, Any]) -> Content:
    name, figures = "-".join(re.findall(r"\w+", part["name"])), compared(results, part["name"])
    tables = [s.table(f"tab:{name}-{i}") for i, s in enumerate(sheets(results, part["name"]), start=1)]
    beside = published_table([(p, ours) for p, ours in figures if ours], f"tab:{name}-published", part["title"])
    alone = [f"{p['what']} ({p['text']})" for p, ours in figures if not ours]
    charts = study_charts.charts(results, part)
    values = {"note": part["note"], "tables": tables, "beside": beside, "alone": alone, "charts": charts}
    return Content(values, [*tables, *([beside] if beside else [])], anchor=f"part-{name}", title=part["title"])
