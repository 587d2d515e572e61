"""Where questions of regulators and standards find evidence on this page; no claim of conformity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medrobust.report.findings import Findings
from medrobust.report.questions import NO_ANSWER, Answer, QuestionSource, ReviewQuestion, answers, questions
from medrobust.report.section import Content
from medrobust.report.tables import Table, TableCell

ANCHOR, TITLE, ORDER = "crosswalk", "Questions of regulators", 150
COMMANDS = ("audit", "universal", "detect", "evade", "defend")
LAST = FOLDED = True


@dataclass(frozen=True)
class AnsweredQuestion:
    """links: anchor and title of the sections that show it."""

    question: ReviewQuestion
    state: str
    gives: str
    links: list[tuple[str, str]]


def build(f: Findings, shown: Mapping[str, str]) -> Content:
    """shown: titles of the sections of this page that have something to show, by anchor."""
    if f.run.criteria is not None:  # they stand above the sections
        shown = {**shown, "criteria": "Acceptance criteria"}
    given, table, groups = answers(f), questions(), []
    for key, source in table.sources.items():
        lines = [_line(a, shown) for a in given if a.question.source == key]
        groups.append((_table(key, source, lines), lines))
    version = f"version {table.version}, {table.date}"
    return Content({"groups": groups, "version": version, "no_answer": NO_ANSWER}, [t for t, _ in groups])


def _line(answer: Answer, shown: Mapping[str, str]) -> AnsweredQuestion:
    if answer.state == NO_ANSWER:
        return AnsweredQuestion(answer.question, NO_ANSWER, "", [])
    links = [(anchor, shown[anchor]) for anchor in answer.question.sections if anchor in shown]
    return AnsweredQuestion(answer.question, answer.state, answer.gives, links)


def _table(key: str, source: QuestionSource, lines: list[AnsweredQuestion]) -> Table:
    """The questions of one source, as LaTeX has them."""
    texts = [(f"{x.question.part}. {x.question.asks}", said(x), x.question.open) for x in lines]
    head = [TableCell(t) for t in ("Question", "This run", "Left open")]
    caption = f"{source.title} ({source.basis}). No claim of conformity."
    return Table(caption, head, [[TableCell(t) for t in line] for line in texts], f"tab:{key}", (0.34, 0.36, 0.26))


def said(line: AnsweredQuestion) -> str:
    """ "evidence: accuracy against the size of the change (Accuracy under attack)"."""
    where = f" ({'; '.join(title for _, title in line.links)})" if line.links else ""
    return line.state if line.state == NO_ANSWER else f"{line.state}: {line.gives}{where}"
