"""The steps of an audit as a plan of cells: workers fill the store of the run folder, and the audit reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from medrobust.errors import InputError
from medrobust.experiments.context import Step
from medrobust.experiments.tasks import STEP, task_named
from medrobust.experiments.tickets import Spec, SystemTicket, Ticket
from medrobust.grid import Node, Study
from medrobust.progress import Progress
from medrobust.runner import execute
from medrobust.runner.executors import Executor
from medrobust.runner.plan import FAILED, Plan, read
from medrobust.runner.planned import Place, Planned
from medrobust.store import key


class _Tickets:
    """Of the steps of one audit."""

    def __init__(self, system: SystemTicket, folder: Path) -> None:
        self.system, self.folder = system, folder
        self.needs: dict[str, dict[str, str]] = {}
        """By step, the keys of the cells that it needs."""

    def spec(self, step: str) -> Spec:
        """What the cell of a step depends on."""
        return {
            "task": STEP,
            "code": task_named(STEP).code(),
            "step": step,
            "system": key(self.system),  # a digest: cells are kept, and a ticket holds paths
            "needs": self.needs[step],
        }

    def ticket(self, cell: Planned) -> Ticket:
        """What a worker is handed, plain JSON."""
        step = str(cell.labels["step"])
        return {
            "task": STEP,
            "args": {"step": step},
            "system": self.system,
            "needs": self.needs[step],
            "models": {},
            "data": None,
            "key": cell.key,
            "spec": self.spec(step),
            "run": str(self.folder.resolve()),
            "root": str(self.folder),
            "folder": None,
        }


def plan(steps: Mapping[str, Step], system: SystemTicket, folder: Path, title: str) -> Plan:
    """Every step by the name of its cell, needs before what needs them. system: the ticket of what is tested."""
    tickets, names, cells = _Tickets(system, folder), dict[str, str](), dict[str, Planned]()
    for step in steps.values():
        tickets.needs[step.name] = {need: names[need] for need in step.needs}
        name = names[step.name] = key(tickets.spec(step.name))
        needs = tuple(tickets.needs[step.name].values())
        cells[name] = Planned(name, title, STEP, Node(STEP), needs, {"step": step.name}, tickets)
    plan_ = Plan(Study(title, "", ()), Place(folder), cells)
    read(plan_)
    plan_.failed.clear()  # an audit tries again what failed
    return plan_


def run(
    steps: Mapping[str, Step],
    system: SystemTicket,
    folder: Path,
    executor: Executor,
    progress: Progress,
    finished: Callable[[str], None],
) -> None:
    """Do all steps with ``executor``; finished(step) is called for each. InputError where one cannot be done."""
    plan_ = plan(steps, system, folder, "audit")
    by_key = {name: str(cell.labels["step"]) for name, cell in plan_.cells.items()}
    for name in plan_.done:
        finished(by_key[name])
    ran = execute.run(plan_, executor, progress, finished=lambda name: finished(by_key[name]))
    if ran.failed:
        failure = plan_.failed[ran.failed[0]]
        trace = f"; its traceback is in {folder / FAILED}" if failure.trace else ""
        raise InputError(f"{failure.labels['step']}: {failure.error}{trace}")
