"""Works through a plan: ready cells go to an executor, failed ones are tried again, hopeless ones are written down."""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from medrobust import atomic
from medrobust.atomic import DiskError
from medrobust.progress import NoProgress, Progress
from medrobust.runner.executors import CellOutcome, Executor
from medrobust.runner.plan import FAILED, Plan
from medrobust.runner.planned import Failure, Planned

TRIES = 3
"""How often a cell is begun before it counts as failed."""


@dataclass
class Summary:
    """What a run did: cells computed, tries that failed and were repeated, and cells given up."""

    done: int = 0
    repeated: int = 0
    failed: list[str] = field(default_factory=list)


def run(
    plan: Plan, executor: Executor, progress: Progress | None = None, finished: Callable[[str], None] | None = None
) -> Summary:
    """Compute everything of ``plan`` that is left. DiskError where the run folder cannot be written to.

    finished: called with the key of each cell as soon as it is computed; ``plan.done`` holds it then. An error that it
    raises ends the run.
    """
    return _Run(plan, executor, progress or NoProgress(), finished).run()


class _Run:
    def __init__(
        self, plan: Plan, executor: Executor, progress: Progress, finished: Callable[[str], None] | None
    ) -> None:
        self.plan, self.executor, self.progress, self.report = plan, executor, progress, finished
        self.summary = Summary()
        self.tries: Counter[str] = Counter()
        self.running: set[str] = set()
        self.open = {c.key for c in plan.left}
        self.above: dict[str, list[str]] = {}
        self.waits: dict[str, set[str]] = {}
        """What each open cell still waits for."""
        for cell in plan.cells.values():
            for need in set(cell.needs):
                self.above.setdefault(need, []).append(cell.key)
        self.rank = self._ranks()
        self.ready: list[tuple[float, int, str]] = []
        self.order = {name: i for i, name in enumerate(plan.cells)}

    def run(self) -> Summary:
        for name in [n for n in self.plan.cells if n in self.open]:
            self.waits[name] = {k for k in self.plan.cells[name].needs if k not in self.plan.done}
        for name in list(self.waits):
            lost = [k for k in self.plan.cells[name].needs if k in self.plan.failed]
            if lost and name in self.open:
                self._give_up(name, self._because(lost[0]), cause=lost[0])
            elif not self.waits[name]:
                self._push(name)
        self.progress.start("Cells", len(self.open))
        try:
            while self.ready or self.running:
                while self.ready and self.executor.free:
                    name = heapq.heappop(self.ready)[2]
                    if name in self.open and name not in self.running:
                        self._begin(name)
                if self.running:
                    for outcome in self.executor.wait():
                        self._ended(outcome)
        finally:
            self.progress.stop()
        return self.summary

    def _begin(self, name: str) -> None:
        cell = self.plan.cells[name]
        self.tries[name] += 1
        self.running.add(name)
        self.executor.submit(cell.ticket)
        self.progress.advance(0, now=words(cell))

    def _ended(self, outcome: CellOutcome) -> None:
        name = outcome.key
        self.running.discard(name)
        if outcome.kind == "done":
            self._finished(name)
        elif outcome.kind == "disk":
            raise DiskError(outcome.text)
        elif outcome.kind == "gone" and self.tries[name] < TRIES:
            self._again(outcome.text, name)
        elif outcome.kind == "input" or self.tries[name] >= TRIES:
            self._give_up(name, outcome.text, outcome.trace)
        else:
            self.summary.repeated += 1
            self._push(name)

    def _finished(self, name: str) -> None:
        self.open.discard(name)
        self.plan.finished(name)
        self.summary.done += 1
        self.progress.advance()
        if self.report is not None:
            self.report(name)
        for above in self.above.get(name, ()):
            if above in self.open and name in self.waits[above]:
                self.waits[above].discard(name)
                if not self.waits[above]:
                    self._push(above)

    def _again(self, need: str, name: str) -> None:
        """Something that ``name`` stands on cannot be read: it is made again first."""
        self.summary.repeated += 1
        if need not in self.plan.cells:
            self._push(name)
            return
        self.waits[name] = {need}
        if need not in self.open:
            self.open.add(need)
            self.plan.done.pop(need, None)
            self.waits[need] = set()
            self._push(need)

    def _give_up(self, name: str, text: str, trace: str = "", cause: str | None = None) -> None:
        """Write down what failed, and everything that stands on it. cause: the failed cell that this one needs."""
        cell = self.plan.cells[name]
        because = None if cause is None else words(self.plan.cells[cause])
        failure = Failure(cell.part, cell.task, dict(cell.labels), text, because, trace)
        atomic.write_text(self.plan.place.out / FAILED / f"{name}.json", json.dumps(asdict(failure), indent=1))
        self.plan.failed[name] = failure
        self.open.discard(name)
        self.summary.failed.append(name)
        self.progress.advance()
        for above in self.above.get(name, ()):
            if above in self.open:
                self._give_up(above, self._because(name), cause=name)

    def _because(self, name: str) -> str:
        return f"not begun: it needs {words(self.plan.cells[name])}, which failed"

    def _push(self, name: str) -> None:
        heapq.heappush(self.ready, (-self.rank[name], self.order[name], name))

    def _ranks(self) -> dict[str, float]:
        """Seconds until the end of the longest chain that begins with a cell: long chains go first."""
        rank: dict[str, float] = {}
        for name in reversed(self.plan.cells):
            after = max((rank[a] for a in self.above.get(name, ())), default=0.0)
            rank[name] = (self.plan.seconds(self.plan.cells[name]) or 1.0) + after
        return rank


def words(cell: Planned) -> str:
    """A cell as a person would call it."""
    return " ".join([cell.part, cell.task, *(str(v) for v in cell.labels.values())])


def forget_failures(folder: Path) -> int:
    """Let cells that failed be tried again; how many there were."""
    files = list((folder / FAILED).glob("*.json"))
    for file in files:
        file.unlink(missing_ok=True)
    return len(files)
