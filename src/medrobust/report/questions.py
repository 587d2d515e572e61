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
from pydantic import BaseModel, ConfigDict

from medrobust.report.findings import Findings
from medrobust.report.tested import believed
from medrobust.results import Kind, among

NO_ANSWER = "not answered by this run"
EVIDENCE, IN_DOUBT = "evidence", "inconclusive"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Part):
    """basis: how it was read."""

    title: str
    basis: str


class Which(_Part):
    """Rows that are evidence: of a kind, and of a metric where one is named."""

    kind: Kind
    metric: str = ""


class Question(_Part):
    """rows, checks, criteria, command: where the run has any of them, there is evidence. always: in every run.

    sections: anchors of what shows it. gives: what the evidence is; open: what it leaves open.
    """

    source: str
    part: str
    asks: str
    rows: tuple[Which, ...] = ()
    checks: bool = False
    criteria: bool = False
    command: str = ""
    always: bool = False
    sections: tuple[str, ...] = ()
    gives: str = ""
    open: str


class Questions(_Part):
    version: int
    date: datetime.date
    sources: Mapping[str, Source]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Answer:
    """state: EVIDENCE, IN_DOUBT or NO_ANSWER."""

    question: Question
    state: str


@cache
def questions() -> Questions:
    """The table of this version of the package."""
    text = (files("medrobust.report") / "questions.yaml").read_text(encoding="utf-8")
    return Questions.model_validate(yaml.safe_load(text))


def answers(f: Findings) -> list[Answer]:
    """Every question, and whether this run holds evidence on it."""
    return [Answer(question, _state(f, question)) for question in questions().questions]


def _state(f: Findings, question: Question) -> str:
    run = f.run
    if question.always or (question.command and question.command == run.command):
        return EVIDENCE
    if question.checks:
        return EVIDENCE if any(check.passed is not None for check in run.checks) else NO_ANSWER
    rows = [
        row
        for which in question.rows
        for row in among(run.rows, kind=which.kind, **({"metric": which.metric} if which.metric else {}))
        if row.value is not None and row.n
    ]
    if not rows:
        return NO_ANSWER
    return EVIDENCE if any(believed(f, row) for row in rows) else IN_DOUBT
