"""The driver of every command that measures: a list of experiments, done step by step, written as results.json.

Each experiment is a number of steps that fill the store with cells, in this process or in workers, and an outcome that
reads them. results.json is written after every experiment, so that the first page can be read while the rest is still
computed.

DIR/cells/        finished pieces of work
DIR/results.json  conditions, rows, checks, examples
DIR/figures.safetensors
"""

from __future__ import annotations

import importlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from medrobust import json_files
from medrobust.errors import InputError
from medrobust.experiments import checks, finding_sets, system
from medrobust.experiments.config import AuditSpec
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step, TestData, steps_by_name
from medrobust.experiments.tickets import SystemTicket
from medrobust.models import is_url
from medrobust.progress import NoProgress, Progress
from medrobust.results import FIGURES, FORMAT, Kind, ResultsFile, Row, doubted
from medrobust.run_folder import RunFolder
from medrobust.run_info import with_run
from medrobust.store import Store


class Command(NamedTuple):
    """experiments: ``module:function`` that makes them from (context, options).

    settings: fields of the config that they read, beside those of the system. findings: what it does
    with several findings an image.
    """

    experiments: str
    settings: tuple[str, ...] = ()
    findings: Literal["covered", "as sets"] = "covered"
    stored: bool = False
    """Whether stored values are attacked; else what is shown of them."""


SUITES = {
    "audit": Command("medrobust.experiments.auditing:experiments", tuple(AuditSpec.model_fields), stored=True),
    "universal": Command("medrobust.experiments.universal:experiments", stored=True),
    "certify": Command("medrobust.experiments.certified:experiments", ("attacks", "eps"), stored=True),
    "defend": Command("medrobust.experiments.defence:experiments"),
    "harden": Command("medrobust.experiments.hardening:experiments"),
    "input-defences": Command("medrobust.experiments.input_defences:experiments", ("eps",)),
    "detect": Command("medrobust.experiments.detection:experiments", ("attacks", "eps"), "as sets"),
    "evade": Command("medrobust.experiments.evasion:experiments", ("attacks", "eps"), "as sets"),
    "explain": Command("medrobust.experiments.explanations:experiments", ("eps",), "as sets"),
    "search": Command("medrobust.experiments.search:experiments"),
}
"""By name of the command."""
NEED_NETWORK = ("universal", "defend", "harden", "input-defences", "detect", "evade", "explain", "search")
"""Commands that cannot be done by queries alone."""
ON_GRADIENTS = (Kind.WORST, Kind.FINDING, Kind.UNIVERSAL, Kind.DETECTOR, Kind.EVASION, Kind.EXPLANATION)
"""What rests on the gradient beside the attacks that follow it: the worst case, the perturbation for every image, the
attack that detectors look for, and what is read off the network's gradients."""
FIRST, OFTEN = 5.0, 20.0
"""Seconds from the beginning of a run, or from one writing of results to the next, before results that are not complete
yet are written: the first page of a long run is there as soon as there is anything to say."""

Execute = Callable[["Suite", Callable[[str], None]], None]
"""Does all steps of a suite somewhere else, and calls back with the name of each that is finished."""
Written = Callable[[Sequence[str]], object]
"""Called whenever results.json is new, with the experiments that are still to come."""
Judge = Callable[[ResultsFile, Mapping[str, np.ndarray]], Mapping[str, object]]
"""Results and arrays, finished or not, to the acceptance criteria as results.json holds them."""


class Suite:
    """The experiments of one command on one system, and their steps by name.

    options: what the command takes beside the config, plain JSON. A worker makes its own from ``ticket`` and shares the
    store: there it finds the cells that a step needs.
    """

    def __init__(
        self,
        kind: str,
        config: AuditSpec,
        options: Mapping[str, Any],
        tested: TestData,
        store: Store,
        progress: Progress | None = None,
        device: str | None = None,
    ) -> None:
        config = tested.with_sizes(config) if isinstance(tested, system.System) else config
        self.kind, self.config, self.options, self.device = kind, config, dict(options), device
        self.tested, self.store = tested, store
        if kind in NEED_NETWORK and isinstance(tested, system.System) and tested.classifier.black_box:
            raise InputError(
                f"medrobust {kind} needs gradients or layers of the network, and {config.model} only answers: "
                "medrobust audit and attack work by queries"
            )
        self.context = Context(tested, config, store, progress, kind)
        module, _, function = SUITES[kind].experiments.partition(":")
        self.experiments: list[Experiment] = getattr(importlib.import_module(module), function)(self.context, options)
        self.steps: Mapping[str, Step] = steps_by_name(self.experiments)
        self._done: set[str] = set()

    def do(self, name: str) -> None:
        """One step, after those that it needs; what is in the store is not computed again."""
        if name in self._done:
            return
        for need in self.steps[name].needs:
            self.do(need)
        self.steps[name].work()
        self._done.add(name)

    @property
    def ticket(self) -> SystemTicket:
        """From which a worker makes the same suite, in whatever folder it was started; plain JSON."""
        if is_url(self.config.model):
            raise InputError(
                f"{self.config.model} is asked by one process, which counts its queries: leave --workers out"
            )
        config = self.config.model_dump(mode="json") | {"trust_code": self.config.trust_code}
        config |= {name: _absolute(config[name]) for name in ("data", "model", "weights", "pretrained", "risk")}
        if self.tested.trained_here:  # a worker takes what was trained
            config |= {"model": str((self.store.folder / "model").resolve()), "train": None, "pretrained": None}
        return {
            "kind": self.kind,
            "config": config,
            "options": self.options,
            "device": self.device,
            "digests": [self.tested.model_digest, self.tested.data_digest],
        }


def _absolute(text: str | None) -> str | None:
    """ "csv:labels.csv" with the absolute path of the file; anything that names no file or folder as it is."""
    if text and (file := Path(text.rpartition(":")[0])).is_file():  # weights.pth:state_dict_ema
        return f"{file.resolve()}:{text.rpartition(':')[2]}"
    kind, colon, place = text.rpartition(":") if text else ("", "", "")
    return f"{kind}{colon}{Path(place).resolve()}" if place and Path(place).exists() else text


def assemble(
    kind: str,
    config: AuditSpec,
    options: Mapping[str, Any],
    run: RunFolder | None,
    progress: Progress,
    device: str | None = None,
    *,
    compare: bool = True,
) -> TestData:
    """What the command ``kind`` tests: images and classifier; of a search, what gives the features. See ``system``."""
    if kind == "search":
        from medrobust.experiments import search_system  # which loads the room of searches

        return search_system.assemble(config, options["features"], progress, device)
    tested = system.assemble(config, run, progress, device, compare=compare, stored=SUITES[kind].stored)
    if kind == "audit":
        tested = system.averaged(tested, progress)
    if SUITES[kind].findings == "as sets" and tested.classifier.head.multilabel:
        return finding_sets.as_sets(tested)
    return tested


_SUITES: dict[str, Suite] = {}
"""Of this process: one, so that a worker loads images and classifier once."""


def of_ticket(ticket: SystemTicket, store: Store) -> Suite:
    """The suite of a ticket, in this process. InputError where images or classifier are not those of the plan."""
    name = json.dumps([ticket, str(store.folder)], sort_keys=True)
    if name not in _SUITES:
        _SUITES.clear()
        config = AuditSpec.model_validate(ticket["config"])
        kind, options = ticket["kind"], ticket["options"]
        # what decisions are compared with is a result of the main process: no step uses it
        tested = assemble(kind, config, options, None, NoProgress(), ticket["device"], compare=False)
        if [tested.model_digest, tested.data_digest] != list(ticket["digests"]):
            raise InputError("images or classifier are not what they were when the run began; give its command again")
        _SUITES[name] = Suite(kind, config, options, tested, store, device=ticket["device"])
    return _SUITES[name]


def run(
    suite: Suite,
    folder: RunFolder,
    *,
    command: str = "",
    operator: str = "",
    keep_names: bool = False,
    pictures: bool = True,
    execute: Execute | None = None,
    written: Written | None = None,
    judge: Judge | None = None,
    begun: float | None = None,
) -> Mapping[str, object]:
    """Do every step, write results.json, and return what it holds. folder: begun, and locked by the caller.

    command, operator: see ``run_info.with_run``. pictures: keep the arrays that show images of the data. execute: does
    the steps in workers; in this process if not given. judge: the acceptance criteria. begun: when the run began, by
    ``time.monotonic``, where that was before this call.
    """
    begun = time.monotonic() if begun is None else begun
    writer = _Writer(suite, folder, command, operator, keep_names, pictures, written, judge, begun)
    if execute is not None:
        suite.context.progress = NoProgress()  # what is shown are the steps
        _beside(partial(execute, suite), writer.finished)
    for experiment in suite.experiments:
        for step in () if execute is not None else experiment.steps():
            suite.do(step.name)
            writer.step_done(step.name)
        writer.write_if_due(experiment)
    return writer.write()


def _beside(execute: Callable[[Callable[[str], None]], None], finished: Callable[[str], None]) -> None:
    """``execute`` with a callback that returns at once: ``finished`` follows in a thread of its own, in order.

    A report takes seconds, and this thread hands workers their next step. An error of ``finished`` ends the run.
    """
    context, calls = copy_context(), list[Future[None]]()

    def later(step: str) -> None:
        for call in calls:
            if call.done():
                call.result()
        calls.append(thread.submit(context.run, finished, step))

    with ThreadPoolExecutor(1) as thread:
        try:
            execute(later)
        except BaseException:
            thread.shutdown(wait=False, cancel_futures=True)
            raise
    for call in calls:
        call.result()


class _Writer:
    """Puts the outcomes of finished experiments together and writes them."""

    def __init__(
        self,
        suite: Suite,
        run: RunFolder,
        command: str,
        operator: str,
        keep_names: bool,
        pictures: bool,
        written: Written | None,
        judge: Judge | None,
        begun: float,
    ) -> None:
        self.suite, self.run, self.written, self.judge = suite, run, written, judge
        self.command, self.operator = command, operator
        self.keep_names, self.pictures = keep_names, pictures
        self.outcomes: dict[str, ExperimentResult] = {}
        self.steps: set[str] = set()
        # what is complete is replaced by what is complete again, not by a first page
        self.due, self.first = math.inf if _is_complete(run) else begun + FIRST, True

    def step_done(self, step: str) -> None:
        """Writes the first page where there is one to write."""
        self.steps.add(step)
        if self.first and time.monotonic() > self.due and self._preliminary():
            self.write()

    def _preliminary(self) -> list[ExperimentResult]:
        """What experiments that are not finished tell already."""
        finished = self.steps | self.outcomes.keys()
        early = (e.preliminary(finished) for e in self.suite.experiments if e.name not in self.outcomes)
        return [outcome for outcome in early if outcome is not None]

    def finished(self, step: str) -> None:
        """A step was done elsewhere: where it completes an experiment, its outcome is written."""
        self.step_done(step)
        for experiment in self.suite.experiments:
            if experiment.name in self.outcomes:
                continue
            if not {s.name for s in experiment.steps()} <= self.steps:
                return  # in order, so that what is written is what one process would have written
            self.write_if_due(experiment)

    def write_if_due(self, experiment: Experiment) -> None:
        """Take the outcome of an experiment, and write what there is, unless that was done a moment ago."""
        if experiment.name not in self.outcomes:
            self.outcomes[experiment.name] = experiment.outcome()
            experiment.save(self.run, keep_names=self.keep_names)
        if len(self.outcomes) < len(self.suite.experiments) and time.monotonic() > self.due:
            self.write()

    def write(self) -> Mapping[str, object]:
        """results.json and figures.safetensors of the outcomes so far; returns the former."""
        from safetensors.numpy import save

        suite, tested = self.suite, self.suite.tested
        pending = [e for e in suite.experiments if e.name not in self.outcomes]
        outcomes = [*self.outcomes.values(), *self._preliminary()]
        stated = tested.conditions(suite.config, suite.kind, SUITES[suite.kind].settings)
        for outcome in outcomes:
            for name, value in outcome.conditions.items():
                before = stated.get(name)
                stated[name] = before | value if isinstance(before, dict) and isinstance(value, dict) else value
        stated["options"] = suite.options
        stated["pictures"] = self.pictures
        stated["pending"] = [e.name for e in pending]
        results: ResultsFile = {
            "format": FORMAT,
            "kind": suite.kind,
            "conditions": stated,
            "rows": [row.plain() for row in _believed(outcomes)],
            "checks": [check.plain() for outcome in outcomes for check in outcome.checks],
            "examples": [example for outcome in outcomes for example in outcome.examples],
            "left_out": [{"part": part, "why": why} for outcome in outcomes for part, why in outcome.left_out],
            "seconds": {k: round(v, 3) for k, v in suite.context.seconds.items()},
        }
        kept = [outcome.arrays | (outcome.pictures if self.pictures else {}) for outcome in outcomes]
        arrays = {k: np.ascontiguousarray(v) for every in kept for k, v in every.items()}
        if self.judge is not None:
            results["criteria"] = self.judge(results, arrays)
        results = tested.named(results, self.keep_names)
        self.run.write_bytes(FIGURES, save(arrays))
        written = with_run(self.run.path, "results.json", results, self.command, tested.device, self.operator)
        # last: whoever sees results.json may rely on everything else being there
        self.run.write_text("results.json", json.dumps(written, indent=1, allow_nan=False))
        self.due, self.first = time.monotonic() + OFTEN, False
        if not pending:
            suite.store.sweep_leftovers()
        if self.written is not None:
            self.written([e.name for e in pending])
        return written


def _is_complete(run: RunFolder) -> bool:
    """Whether the folder holds the results of a finished run, as when the same command is given again."""
    if (path := run.made("results.json")) is None:
        return False
    try:
        conditions = json_files.read_object(path).get("conditions")
    except InputError:
        return False
    return isinstance(conditions, dict) and conditions.get("pending") == []


def _believed(outcomes: list[ExperimentResult]) -> list[Row]:
    """The rows of all outcomes; numbers that rest on a gradient that fails its check, and all of a classifier that
    guesses, are in doubt."""
    others = [row for outcome in outcomes if outcome.of_another for row in outcome.rows.rows]
    outcomes = [outcome for outcome in outcomes if not outcome.of_another]
    rows = [row for outcome in outcomes for row in outcome.rows.rows]
    for outcome in outcomes:
        for attack, why in outcome.doubts.items():
            rows = doubted(rows, why, attacks=(attack,))
    if why := checks.doubt([check for outcome in outcomes for check in outcome.checks]):
        follow = {attack for outcome in outcomes for attack in outcome.on_gradients}
        rows = doubted(rows, why, ON_GRADIENTS, follow)
    if why := next((outcome.guesses for outcome in outcomes if outcome.guesses), ""):
        rows = doubted(rows, why, set(Kind) - {Kind.CLEAN})
    return rows + others
