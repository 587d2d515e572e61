"""Networks trained by meta-heuristic search beside gradient baselines: one table of features, one protocol, cells.

The protocol of a fair comparison: every method gets the same number of evaluations (a gradient counts as three), the
same space, first points, penalty and stopping rule (the budget); whole patients are dealt into outer folds anew for
every seed, and all that is fitted (scaling, principal components, masks, hyper-parameters, thresholds, weights) is
fitted on training folds. What is told of test images is told once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import search
from medrobust.errors import InputError
from medrobust.experiments import search_rows
from medrobust.progress import NoProgress, Progress
from medrobust.store import Cell, Store
from medrobust.training import evolved
from medrobust.training.evolved import QUESTIONS, EvolvedResult, FeatureTable, OuterFold, Problem

COMMON = ("random", "ga", "pso", "de", "cma-es", "gwo", "woa", "gwo+adam")
"""Compared unless others are named."""


@dataclass(frozen=True)
class Ask:
    """What is asked of a comparison.

    questions: names of QUESTIONS. methods: names of medrobust.search.OPTIMISERS, "NAME+adam" for one of them followed
    by gradient descent, or "all"; the baselines of each question are always there. budget: evaluations a task for
    weights; the other questions, whose evaluations cost more or whose spaces are smaller, get a share of it.
    """

    questions: tuple[str, ...] = ("weights",)
    methods: tuple[str, ...] = COMMON
    budget: int = 6000
    seeds: int = 20
    folds: int = 3

    def __post_init__(self) -> None:
        for name in self.questions:
            if name not in QUESTIONS:
                raise InputError(f"{name!r} cannot be searched; choose from {', '.join(QUESTIONS)}")
        if not self.questions or not self.methods:
            raise InputError("name at least one method, and one thing to search")
        if self.seeds < 2:
            raise InputError(f"seeds must be 2 or more, got {self.seeds}: one run tells nothing about a random search")
        if self.folds < 2:
            raise InputError(f"folds must be 2 or more, got {self.folds}")
        for question in self.questions:
            about = QUESTIONS[question]
            for name in self.names(question):
                evolved.method(question, name)
                least = 1 if name in about.baselines else evolved.optimiser(name, self.evaluations(question)).least(1)
                if self.evaluations(question) < least:
                    raise InputError(
                        f"a budget of {self.budget} leaves {self.evaluations(question)} evaluations for {about.title}, "
                        f"and {name} needs {least}; raise it to {round(least / about.share)} or more"
                    )

    def names(self, question: str) -> list[str]:
        """The methods compared on one question: its baselines, then the searches that can be used on it."""
        about = QUESTIONS[question]
        asked = [n for m in self.methods for n in (everything(question) if m == "all" else (m,))]
        able = [n for n in asked if about.problem.differentiable or not evolved.needs_gradient(n)]
        wanted = [*about.baselines, *able]
        if about.reference not in wanted:
            wanted.append(about.reference)
        return list(dict.fromkeys(wanted))

    def evaluations(self, question: str) -> int:
        """Of one task."""
        return max(1, round(self.budget * QUESTIONS[question].share))


def everything(question: str) -> tuple[str, ...]:
    """Every optimiser; where there are gradients, five of them followed by gradient descent too."""
    names = tuple(search.OPTIMISERS)
    if not QUESTIONS[question].problem.differentiable:
        return names
    return (*names, *(f"{name}+adam" for name in ("ga", "pso", "de", "gwo", "woa")))


class Searching:
    """One table of features under one Ask. about: what the report should know of images and features."""

    def __init__(
        self,
        ask: Ask,
        folder: Path,
        table: FeatureTable,
        about: dict[str, Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.ask, self.table, self.about = ask, table, dict(about or {})
        self.store, self.progress = Store(Path(folder)), progress or NoProgress()
        self.digest = table.digest()
        self.tasks = evolved.tasks(table, range(ask.seeds), ask.folds)
        self.problems: dict[str, Problem] = {}

    def run(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """(results, times): the same ask gives the same results, to the bit; times are the machine's."""
        ask = self.ask
        results: dict[str, Any] = {"format": 1, "facts": self._facts(), "rows": [], "questions": {}}
        times: dict[str, Any] = {}
        for question in ask.questions:
            names = ask.names(question)
            self.progress.start(f"Searching: {QUESTIONS[question].title}", len(names))
            cells = {}
            for name in names:
                cells[name] = self._cell(question, name)
                self.progress.advance(method=name)
            self.progress.stop()
            self.problems.pop(question, None)  # its tensors are large, and the next question has its own
            rows, told = search_rows.summary(cells, self.table, self.tasks, ask, question)
            results["rows"] += rows
            results["questions"][question] = told
            times[question] = {n: search_rows.times(c, len(self.tasks)) for n, c in cells.items()}
        return results, times

    def _cell(self, question: str, name: str) -> Cell:
        spec = {
            "kind": "search",
            "table": self.digest,
            "question": question,
            "method": name,
            "budget": self.ask.evaluations(question),
            "seeds": self.ask.seeds,
            "folds": self.ask.folds,
            "optimiser": evolved.code(question, name),
        }
        return self.store.once(spec, lambda: self._found(question, name))

    def _found(self, question: str, name: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        if question not in self.problems:
            self.problems[question] = QUESTIONS[question].problem(self.table, self.tasks)
        problem = self.problems[question]
        found: EvolvedResult = evolved.method(question, name)(problem, self.ask.evaluations(question))
        facts = {"evaluations": found.evaluations, "seconds": found.seconds, "found": found.facts}
        arrays = {
            "probability": judged(found, self.table, self.tasks),
            "at": found.at,
            "curve": found.curve,
            "clock": found.clock,
            "worth": found.worth,
        }
        return facts, arrays

    def _facts(self) -> dict[str, Any]:
        table, ask = self.table, self.ask
        return {
            **self.about,
            "name": table.name,
            "n": len(table),
            "groups": len(np.unique(table.groups)),
            "patients": self.about.get("patients"),
            "features": table.features.shape[1],
            "classes": list(table.classes),
            "healthy": list(table.healthy),
            "counts": np.bincount(table.labels, minlength=len(table.classes)).tolist(),
            "seeds": ask.seeds,
            "folds": ask.folds,
            "budget": {q: ask.evaluations(q) for q in ask.questions},
        }


def judged(found: EvolvedResult, table: FeatureTable, tasks: list[OuterFold]) -> np.ndarray:
    """float32 (seeds, n, k): each image's probabilities from the network of the fold that it was held out of."""
    seeds = sorted({t.seed for t in tasks})
    out = np.full((len(seeds), len(table), len(table.classes)), np.nan, dtype=np.float32)
    for task, network in zip(tasks, found.fitted, strict=True):
        out[seeds.index(task.seed), task.test] = network.probabilities(table.features[task.test])
    return out
