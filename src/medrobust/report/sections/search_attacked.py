"""Evolved networks under attack, beside gradient-trained ones of the same accuracy."""

from __future__ import annotations

from medrobust.report.findings import Findings
from medrobust.report.search_tables import attacked_table
from medrobust.report.search_words import robustness
from medrobust.report.searched import attacked
from medrobust.report.section import Content

ANCHOR, TITLE, ORDER = "attacked", "Are evolved networks more or less robust?", 20
NEEDS = ("networks under attack",)
COMMANDS = ("search",)


def build(f: Findings) -> Content | None:
    info, networks = f.run.conditions.attacked_networks, attacked(f.run)
    if info is None or not networks:
        return None
    table = attacked_table(info, networks)
    return Content({"content": table, "sentences": robustness(networks)}, [table])
