"""What a cell of a study may compute: each task is a function of its ``Work`` alone, by name in ``TASKS``.

A task is named, not handed over: every worker finds the same function under the same name, whatever started it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from medrobust import code_digest, own_code
from medrobust.errors import InputError


class StudyTask(NamedTuple):
    """where: ``module:function``."""

    where: str

    def code(self) -> str:
        """Digest of the code that computes it, part of every key."""
        return code_digest.of_module(self.where.partition(":")[0])


_HERE = "medrobust.experiments.tasks"

STEP = "audit step"
"""The task of a step of an audit; no study file asks for it."""

TASKS = {
    STEP: StudyTask(f"{_HERE}.audit:step"),
    "train": StudyTask(f"{_HERE}.models:train"),
    "clean": StudyTask(f"{_HERE}.curves:clean"),
    "swept": StudyTask(f"{_HERE}.curves:swept"),
    "curve": StudyTask(f"{_HERE}.curves:curve"),
    "worst": StudyTask(f"{_HERE}.curves:worst"),
    "noise": StudyTask(f"{_HERE}.curves:noise"),
    "corrupted": StudyTask(f"{_HERE}.corruptions:corrupted"),
    "saved": StudyTask(f"{_HERE}.curves:saved"),
    "transfer": StudyTask(f"{_HERE}.curves:transfer"),
    "stored": StudyTask(f"{_HERE}.stored:stored"),
    "sparsest": StudyTask(f"{_HERE}.stored:sparsest"),
    "survived": StudyTask(f"{_HERE}.stored:survived"),
    "features": StudyTask(f"{_HERE}.detection:features"),
    "detector": StudyTask(f"{_HERE}.detection:detector"),
    "evaded": StudyTask(f"{_HERE}.detection:evaded"),
    "queried": StudyTask(f"{_HERE}.blackbox:queried"),
    "universal": StudyTask(f"{_HERE}.universal:made"),
    "judged": StudyTask(f"{_HERE}.universal:judged"),
    "random": StudyTask(f"{_HERE}.universal:random"),
    "minimised": StudyTask(f"{_HERE}.search:minimised"),
    "explained": StudyTask(f"{_HERE}.explanations:explained"),
    "claimed": StudyTask(f"{_HERE}.explanations:claimed"),
    "features_table": StudyTask(f"{_HERE}.evolved:features_table"),
    "evolved": StudyTask(f"{_HERE}.evolved:evolved"),
    "compared": StudyTask(f"{_HERE}.evolved:compared"),
    "ranked": StudyTask(f"{_HERE}.evolved:ranked"),
    "evolved_attacked": StudyTask(f"{_HERE}.evolved:evolved_attacked"),
    "measured": StudyTask(f"{_HERE}.networks:measured"),
    "more_robust": StudyTask(f"{_HERE}.networks:more_robust"),
    "trend": StudyTask(f"{_HERE}.networks:trend"),
    "defence": StudyTask(f"{_HERE}.universal:defence"),
}


def task_named(name: str) -> StudyTask:
    """The task of that name, or one's own as ``module:function``; InputError where there is none."""
    if name in TASKS:
        return TASKS[name]
    if ":" in name:
        return StudyTask(name)
    raise InputError(
        f"task {name!r} is not known; choose from {', '.join(t for t in TASKS if t != STEP)}, or write module:function"
    )


def is_own(name: str) -> bool:
    """Whether the name is one's own ``module:function``, not one of TASKS."""
    return name not in TASKS and ":" in name


def function(name: str, folder: Path | None = None) -> Callable[..., Any]:
    """What computes it. folder: that of the study file, where a function of one's own is searched first."""
    return own_code.callable_named(task_named(name).where, folder if is_own(name) else None)
