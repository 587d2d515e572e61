"""Which section holds evidence on which question of a regulator or standard: one versioned table, and a run beside it.

``questions.yaml`` beside this file holds the table. It claims no conformity: a question never reads as answered in
full, and what is left open is always said.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

from medrobust.crosswalk import TablePart
from medrobust.report.criteria_words import CriteriaInfo
from medrobust.report.findings import Findings
from medrobust.report.tested import OUTCOMES, believed, outcome
from medrobust.results import Kind, Row, among

NO_ANSWER = "not answered by this run"
EVIDENCE, IN_DOUBT = "evidence", "inconclusive"


class QuestionSource(TablePart):
    """basis: how it was read."""

    title: str
    basis: str


class EvidenceRows(TablePart):
    """Rows that are evidence: of a kind, and of a metric where one is named. gives: what they are evidence of."""

    kind: Kind
    metric: str = ""
    gives: str


class ReviewQuestion(TablePart):
    """rows, checks, criteria, command: where the run has any of them, there is evidence. always: in every run.

    sections: anchors of what shows it. gives: what the evidence is, where ``rows`` do not say it; open: what
    it leaves open.
    """

    source: str
    part: str
    asks: str
    rows: tuple[EvidenceRows, ...] = ()
    checks: bool = False
    criteria: bool = False
    command: str = ""
    always: bool = False
    sections: tuple[str, ...] = ()
    gives: str = ""
    open: str


class Questions(TablePart):
    version: int
    date: datetime.date
    sources: Mapping[str, QuestionSource]
    questions: tuple[ReviewQuestion, ...]


@dataclass(frozen=True)
class Answer:
    """state: EVIDENCE, IN_DOUBT or NO_ANSWER. gives: what this run has, and nothing that it has not."""

    question: ReviewQuestion
    state: str
    gives: str = ""


@cache
def questions() -> Questions:
    """The table of this version of the package."""
    text = (files("medrobust.report") / "questions.yaml").read_text(encoding="utf-8")
    return Questions.model_validate(yaml.safe_load(text))


def answers(f: Findings) -> list[Answer]:
    """Every question, and whether this run holds evidence on it."""
    return [_answer(f, question) for question in questions().questions]


def _answer(f: Findings, question: ReviewQuestion) -> Answer:
    if (
        question.always
        or (question.command and question.command == f.run.command)
        or (question.checks and any(check.passed is not None for check in f.run.checks))
    ):
        return Answer(question, EVIDENCE, question.gives)
    if question.criteria and f.run.criteria is not None and f.run.criteria.judged:
        return Answer(question, EVIDENCE, _criteria(f.run.criteria))
    evidence = {part.gives: rows for part in question.rows if (rows := _rows(f, part))}
    if not evidence:
        return Answer(question, NO_ANSWER)
    ok = {gives: any(believed(f, row) for row in rows) for gives, rows in evidence.items()}
    if not any(ok.values()):
        return Answer(question, IN_DOUBT, "; ".join(ok))
    return Answer(question, EVIDENCE, "; ".join(text if ok[text] else f"{text} ({IN_DOUBT})" for text in ok))


def _criteria(info: CriteriaInfo) -> str:
    """What became of the criteria, and whether they stood before the run."""
    when = "stated before the run" if info.sha256 == info.begun_with else "stated or changed after the run began"
    return f"{info.line} ({when})"


def _rows(f: Findings, part: EvidenceRows) -> list[Row]:
    """What the run has of it; where no metric is named, of attacks, defences and corruptions only what they did."""
    if part.metric or part.kind not in OUTCOMES:
        columns = {"metric": part.metric} if part.metric else {}
        return [row for row in among(f.run.rows, kind=part.kind, **columns) if row.value is not None and row.n]
    return [row for row in among(f.run.rows, kind=part.kind) if outcome(row)]
