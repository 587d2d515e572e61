"""What a cell of a study may compute: each task is a function of its ``Work`` alone, by name in ``TASKS``.

A task is named, not handed over: every worker finds the same function under the same name, whatever started it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from medrobust import code_digest, own_code
from medrobust.errors import InputError


class Task(NamedTuple):
    """where: ``module:function``."""

    where: str

    def code(self) -> str:
        """Digest of the code that computes it, part of every key."""
        return code_digest.of_module(self.where.partition(":")[0])


_HERE = "medrobust.experiments.tasks"

STEP = "audit step"
"""The task of a step of an audit; no study file asks for it."""

TASKS = {
    STEP: Task(f"{_HERE}.audit:step"),
    "train": Task(f"{_HERE}.models:train"),
    "clean": Task(f"{_HERE}.curves:clean"),
    "swept": Task(f"{_HERE}.curves:swept"),
    "curve": Task(f"{_HERE}.curves:curve"),
    "worst": Task(f"{_HERE}.curves:worst"),
    "noise": Task(f"{_HERE}.curves:noise"),
    "saved": Task(f"{_HERE}.curves:saved"),
    "transfer": Task(f"{_HERE}.curves:transfer"),
    "features": Task(f"{_HERE}.detection:features"),
    "detector": Task(f"{_HERE}.detection:detector"),
    "universal": Task(f"{_HERE}.universal:made"),
    "judged": Task(f"{_HERE}.universal:judged"),
    "random": Task(f"{_HERE}.universal:random"),
    "minimised": Task(f"{_HERE}.search:minimised"),
    "explained": Task(f"{_HERE}.explanations:explained"),
    "claimed": Task(f"{_HERE}.explanations:claimed"),
    "features_table": Task(f"{_HERE}.evolved:features_table"),
    "evolved": Task(f"{_HERE}.evolved:evolved"),
    "compared": Task(f"{_HERE}.evolved:compared"),
    "ranked": Task(f"{_HERE}.evolved:ranked"),
    "evolved_attacked": Task(f"{_HERE}.evolved:evolved_attacked"),
    "defence": Task(f"{_HERE}.universal:defence"),
}


def task_named(name: str) -> Task:
    """The task of that name, or one's own as ``module:function``; InputError where there is none."""
    if name in TASKS:
        return TASKS[name]
    if ":" in name:
        return Task(name)
    raise InputError(
        f"task {name!r} is not known; choose from {', '.join(t for t in TASKS if t != STEP)}, or write module:function"
    )


def is_own(name: str) -> bool:
    """Whether the name is one's own ``module:function``, not one of TASKS."""
    return name not in TASKS and ":" in name


def function(name: str, folder: Path | None = None) -> Callable[..., Any]:
    """What computes it. folder: that of the study file, where a function of one's own is searched first."""
    return own_code.callable_named(task_named(name).where, folder if is_own(name) else None)
