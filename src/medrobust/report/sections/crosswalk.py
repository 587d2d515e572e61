"""Where questions of regulators and standards find evidence on this page; no claim of conformity."""

from __future__ import annotations

from collections.abc import Mapping

from medrobust.report.findings import Findings
from medrobust.report.questions import NO_ANSWER, Answer, QuestionSource, answers, questions
from medrobust.report.section import ATTACK_COMMANDS, Content
from medrobust.report.tables import Table, TableCell

ANCHOR, TITLE, ORDER = "crosswalk", "Questions of regulators", 150
COMMANDS = ATTACK_COMMANDS
LAST = FOLDED = True


def build(f: Findings, shown: Mapping[str, str]) -> Content:
    """shown: titles of the sections of this page that have something to show, by anchor."""
    if f.run.criteria is not None:  # they stand above the sections
        shown = {**shown, "criteria": "Acceptance criteria"}
    every, table = answers(f), questions()
    tables = [
        _table(key, source, [_cells(a, shown) for a in every if a.question.source == key])
        for key, source in table.sources.items()
    ]
    return Content({"tables": tables, "version": f"version {table.version}, {table.date}"}, tables)


def _table(key: str, source: QuestionSource, rows: list[list[TableCell]]) -> Table:
    """The questions of one source."""
    head = [TableCell(t) for t in ("Question", "This run", "Left open")]
    caption = f"{source.title} ({source.basis}). No claim of conformity."
    return Table(caption, head, rows, f"tab:{key}", (0.34, 0.36, 0.26))


def _cells(answer: Answer, shown: Mapping[str, str]) -> list[TableCell]:
    question = answer.question
    links = tuple((anchor, shown[anchor]) for anchor in question.sections if anchor in shown)
    this_run = TableCell(f"{answer.state}: {answer.gives}", links=links)
    if answer.state == NO_ANSWER:
        this_run = TableCell(NO_ANSWER, tone="open")
    return [TableCell(f"{question.part}. {question.asks}"), this_run, TableCell(question.open)]
