"""Performance without attack: tables, confusion matrix and reliability."""

from __future__ import annotations

from medrobust.report import charts, tables
from medrobust.report.findings import Findings
from medrobust.report.section import ATTACK_COMMANDS, Content
from medrobust.report.words import count, plural

ANCHOR, TITLE, ORDER = "clean", "Performance without attack", 10
COMMANDS = ATTACK_COMMANDS


def build(f: Findings) -> Content:
    overall, per_class, confusion = tables.overall(f), tables.per_class(f), tables.confusion(f)
    figures, tables_ = {}, [t for t in (overall, per_class) if t is not None]
    if (pair := tables.tested(f)) is not None:
        n = plural(pair[1].size, "test image")
        alt = f"Reliability diagram of {f.run.conditions.model}: confidence against share read correctly, {n}."
        figures["reliability"] = charts.reliability(*pair, alt)
    caption = ""
    if confusion is not None:
        caption = "Confusion matrix: true class (rows) against what the model says (columns), number of test images "
        caption += f"(n = {count(int(confusion.counts.sum()))}), share of the row."
        tables_.append(confusion.table(caption, "tab-confusion"))
    return Content(
        {
            "overall": overall,
            "per_class": per_class,
            "confusion": confusion,
            "several": f.several,
            "confusion_caption": caption,
            "most_confused": tables.MOST_CONFUSED,
        },
        tables_,
        figures,
    )
