"""Networks trained by search beside gradient baselines, one question after the other."""

from __future__ import annotations

from medrobust.report import search_charts, search_words
from medrobust.report.findings import Findings
from medrobust.report.search_tables import apart, scores
from medrobust.report.searched import TITLES, searched
from medrobust.report.section import Content
from medrobust.report.tables import Table

ANCHOR, TITLE, ORDER = "searches", "What was searched, and what it reached", 10
NEEDS = tuple(f"search {question}" for question in TITLES)
COMMANDS = ("search",)


def build(f: Findings) -> Content | None:
    parts: list[dict[str, object]] = []
    tables: list[Table] = []
    figures: dict[str, str] = {}
    for result in searched(f.run):
        drawn, made = search_charts.figures(result), [scores(result), apart(result)]
        figures |= {name: svg for name, svg, _ in drawn}
        tables += made
        free, captions = search_words.FREE[result.question], [(name, caption) for name, _, caption in drawn]
        parts.append(
            {"title": result.title, "free": free, "budget": result.info.budget, "figures": captions, "tables": made}
        )
    return Content({"content": parts}, tables, figures) if parts else None
