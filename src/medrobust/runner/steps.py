"""The steps of an audit as a plan of cells: workers fill the store of the run folder, and the audit reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medrobust.errors import InputError
from medrobust.experiments.context import Step
from medrobust.experiments.tasks import STEP, task_named
from medrobust.grid import Study
from medrobust.progress import Progress
from medrobust.runner import execute
from medrobust.runner.executors import Executor
from medrobust.runner.plan import FAILED, Place, Plan, Planned, read
from medrobust.store import CODE, key


def plan(steps: Mapping[str, Step], ticket: Mapping[str, Any], folder: Path, title: str) -> Plan:
    """Every step by the name of its cell, needs before what needs them. ticket: of the system under test."""
    names: dict[str, str] = {}
    cells: dict[str, Planned] = {}
    for step in steps.values():
        needs = {need: names[need] for need in step.needs}
        spec = {"task": STEP, CODE: task_named(STEP).code(), "step": step.name, "system": dict(ticket), "needs": needs}
        name = names[step.name] = key(spec)
        told = {
            "task": STEP,
            "args": {"step": step.name},
            "system": dict(ticket),
            "needs": needs,
            "models": {},
            "data": None,
            "key": name,
            "spec": spec,
            "run": str(folder.resolve()),
            "root": str(folder),
            "folder": None,
        }
        cells[name] = Planned(name, title, told, tuple(needs.values()), {"step": step.name}, None)
    made = Plan(Study(title, "", ()), Place(folder), cells)
    read(made)
    made.failed.clear()  # an audit tries again what failed
    return made


def run(
    steps: Mapping[str, Step],
    ticket: Mapping[str, Any],
    folder: Path,
    executor: Executor,
    progress: Progress,
    finished: Callable[[str], None],
) -> None:
    """Do all steps with ``executor``; finished(step) is called for each. InputError where one cannot be done."""
    made = plan(steps, ticket, folder, "audit")
    by_key = {name: str(cell.labels["step"]) for name, cell in made.cells.items()}
    for name in made.done:
        finished(by_key[name])
    ran = execute.run(made, executor, progress, finished=lambda name: finished(by_key[name]))
    if ran.failed:
        first = made.failed[ran.failed[0]]
        trace = f"; its traceback is in {folder / FAILED}" if first["trace"] else ""
        raise InputError(f"{first['labels']['step']}: {first['error']}{trace}")
