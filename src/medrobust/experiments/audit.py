"""The main job: take images and a classifier, attack, judge, check, and leave a run folder with a report.

An audit is a list of experiments with its own settings. Each is a number of steps that fill the store with cells, in
this process or in workers, and an outcome that reads them. results.json is written after every experiment, so that the
first page can be read while the rest is still computed.

DIR/spec.json     what was asked
DIR/model/        the classifier, where it was trained here
DIR/cells/        finished pieces of work
DIR/results.json  conditions, rows, checks, examples
DIR/figures.safetensors, report.html, results.csv, tables.tex
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import json_files, private_names
from medrobust.errors import InputError
from medrobust.experiments import checks, headline
from medrobust.experiments.audit_detection import DetectionExperiment
from medrobust.experiments.audit_explanation import ExplanationExperiment
from medrobust.experiments.audit_universal import UniversalExperiment
from medrobust.experiments.blackbox import BlackBox
from medrobust.experiments.conditions import conditions
from medrobust.experiments.config import AuditSpec
from medrobust.experiments.context import Context, Experiment, Outcome, Step, steps_by_name
from medrobust.experiments.headline import Headline
from medrobust.experiments.robustness import Robustness
from medrobust.experiments.sanity import Sanity
from medrobust.experiments.system import System, assemble
from medrobust.naming import Naming
from medrobust.progress import NoProgress, Progress
from medrobust.results import FORMAT, Kind, Row, doubted
from medrobust.run_folder import RunFolder
from medrobust.run_info import with_run
from medrobust.store import Store
from medrobust.versions import versions

SPEC = "spec.json"
ON_GRADIENTS = (Kind.WORST, Kind.UNIVERSAL, Kind.DETECTOR, Kind.EVASION, Kind.EXPLANATION)
"""What rests on the gradient beside the attacks that follow it and their ensemble: the worst case, the perturbation for
every image, the attack that detectors look for, and what is read off the network's gradients."""
OFTEN = 20.0
"""Seconds between two writings of results that are not complete yet."""

Execute = Callable[["Audit", Callable[[str], None]], None]
"""Does all steps of an audit somewhere else, and calls back with the name of each that is finished."""


def audit(
    config: AuditSpec,
    folder: Path,
    *,
    progress: Progress | None = None,
    device: str | None = None,
    command: str = "",
    keep_names: bool = False,
    execute: Execute | None = None,
    written: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """Do what ``config`` asks in ``folder`` and return what results.json holds. Killed, the same call goes on.

    device: "cpu" or "cuda"; the GPU where there is one. command: as it was typed, for the report. keep_names: write
    names of images, patients and files as they are, instead of codes (see ``medrobust.private_names``). execute: does
    the steps in workers; in this process if not given. written: called whenever results.json is new. InputError for bad
    input and unwritable folders.
    """
    progress = progress or NoProgress()
    asked = config.model_dump(mode="json")
    shown = asked if keep_names else private_names.asked(asked)
    opening = json.dumps({"format": 1, "asked": shown, "versions": versions()}, indent=1)
    with RunFolder(folder, "audit", {SPEC: opening.encode()}) as run:
        _check_same(run, asked)
        system = assemble(config, run, progress, device)
        run.begin()
        if keep_names and system.trained_here:
            system.classifier.save(run.entry("model"), keep_names=True)
        made = Audit(config, system, Store(run.path), progress, device)
        writer = _Writer(made, run, command, keep_names, written)
        if execute is not None:
            execute(made, writer.finished)
        for experiment in made.experiments:
            for step in () if execute is not None else experiment.steps():
                made.do(step.name)
            writer.write_if_due(experiment)
        return writer.write()


def _check_same(run: RunFolder, asked: dict[str, Any]) -> None:
    """One folder, one audit: asking something else of the same folder would mix two sets of numbers."""
    path = run.made(SPEC)
    if path is None:
        return
    before = json_files.read_object(path).get("asked")
    if not isinstance(before, dict):
        raise InputError(f"{path} does not say what was asked; choose another --out")
    hidden = private_names.asked(asked)
    # an option that an older version did not have is not a change; codes of a salt that is lost say nothing
    changed = [
        k
        for k in asked
        if before.get(k, asked[k]) not in (asked[k], hidden[k])
        and (private_names.lasting() or k not in private_names.PATH_FIELDS)
    ]
    if changed:
        k = changed[0]
        raise InputError(
            f"{run.path} holds another audit ({k} was {before.get(k)!r}, now {asked[k]!r}); choose another --out"
        )


class Audit:
    """The experiments of one audit, and their steps by name.

    A worker makes its own from ``ticket`` and shares the store: there it finds the cells that a step needs.
    """

    def __init__(
        self,
        config: AuditSpec,
        system: System,
        store: Store,
        progress: Progress | None = None,
        device: str | None = None,
    ) -> None:
        self.config, self.system, self.store, self.device = config, system, store, device
        self.context = Context(system, config, store, progress)
        self.robustness = Robustness(self.context)
        sanity = Sanity(self.context, self.robustness)
        ensemble = Headline(self.context, self.robustness, sanity)
        self.experiments: list[Experiment] = [
            self.robustness,
            sanity,
            BlackBox(self.context, self.robustness),
            ensemble,
        ]
        if config.universal:
            self.experiments.append(UniversalExperiment(self.context, self.robustness))
        if config.detect:
            self.experiments.append(DetectionExperiment(self.context, self.robustness))
        if config.explain:
            self.experiments.append(ExplanationExperiment(self.context, self.robustness, ensemble))
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
    def ticket(self) -> dict[str, Any]:
        """From which a worker makes the same audit; plain JSON."""
        config = self.config.model_dump(mode="json") | {"trust_code": self.config.trust_code}
        if self.system.trained_here:  # a worker takes what was trained
            config |= {"model": str(self.store.folder / "model"), "train": None, "pretrained": None}
        return {"config": config, "device": self.device, "digests": [self.system.model_digest, self.system.data_digest]}


_AUDITS: dict[str, Audit] = {}
"""Of this process: one, so that a worker loads images and classifier once."""


def of_ticket(ticket: Mapping[str, Any], store: Store) -> Audit:
    """The audit of a ticket, in this process. InputError where images or classifier are not those of the plan."""
    name = json.dumps([ticket, str(store.folder)], sort_keys=True)
    if name not in _AUDITS:
        _AUDITS.clear()
        config = AuditSpec.model_validate(ticket["config"])
        system = assemble(config, None, NoProgress(), ticket["device"])
        if [system.model_digest, system.data_digest] != list(ticket["digests"]):
            raise InputError("images or classifier are not what they were when the audit began; give its command again")
        _AUDITS[name] = Audit(config, system, store, device=ticket["device"])
    return _AUDITS[name]


class _Writer:
    """Puts the outcomes of finished experiments together and writes them."""

    def __init__(
        self, made: Audit, run: RunFolder, command: str, keep_names: bool, written: Callable[[], object] | None
    ) -> None:
        self.made, self.run, self.command, self.keep_names, self.written = made, run, command, keep_names, written
        self.outcomes: dict[str, Outcome] = {}
        self.steps: set[str] = set()
        self.last = time.monotonic()

    def finished(self, step: str) -> None:
        """A step was done elsewhere: where it completes an experiment, its outcome is written."""
        self.steps.add(step)
        for experiment in self.made.experiments:
            if experiment.name in self.outcomes:
                continue
            if not {s.name for s in experiment.steps()} <= self.steps:
                return  # in order, so that what is written is what one process would have written
            self.write_if_due(experiment)

    def write_if_due(self, experiment: Experiment) -> None:
        """Take the outcome of an experiment, and write what there is, unless that was done a moment ago."""
        if experiment.name not in self.outcomes:
            self.outcomes[experiment.name] = experiment.outcome()
        if len(self.outcomes) < len(self.made.experiments) and time.monotonic() - self.last > OFTEN:
            self.write()

    def write(self) -> dict[str, Any]:
        """results.json and figures.safetensors of the outcomes so far; returns the former."""
        from safetensors.numpy import save

        made, outcomes = self.made, list(self.outcomes.values())
        attacks, worst = made.robustness.attacks, any("eps_star.worst" in o.arrays for o in outcomes)
        about: dict[str, Any] = dict.fromkeys(("headline", "universal", "detect", "explain"))
        for outcome in outcomes:
            about |= outcome.conditions
        pending = [e.name for e in made.experiments if e.name not in self.outcomes]
        results: dict[str, Any] = {
            "format": FORMAT,
            "conditions": conditions(made.config, made.system, attacks, worst) | about | {"pending": pending},
            "rows": [row.plain() for row in self._rows(outcomes)],
            "checks": [check.plain() for outcome in outcomes for check in outcome.checks],
            "examples": [example for outcome in outcomes for example in outcome.examples],
            "seconds": {k: round(v, 3) for k, v in made.context.seconds.items()},
        }
        results = Naming(made.system.data, self.keep_names).results(results)
        arrays = {k: np.ascontiguousarray(v) for outcome in outcomes for k, v in outcome.arrays.items()}
        self.run.write_bytes("figures.safetensors", save(arrays))
        device = str(made.system.classifier.device)
        results = with_run(self.run.path, "results.json", results, self.command, device)
        # last: whoever sees results.json may rely on everything else being there
        self.run.write_text("results.json", json.dumps(results, indent=1, allow_nan=False))
        self.last = time.monotonic()
        if not pending:
            made.store.sweep_leftovers()
        if self.written is not None:
            self.written()
        return results

    def _rows(self, outcomes: list[Outcome]) -> list[Row]:
        """Of all outcomes; numbers that rest on a gradient that fails its check, and all of a classifier that guesses,
        are in doubt."""
        rows = [row for outcome in outcomes for row in outcome.rows.rows]
        for outcome in outcomes:
            for attack, why in outcome.doubts.items():
                rows = doubted(rows, why, attacks=(attack,))
        if why := checks.doubt([check for outcome in outcomes for check in outcome.checks]):
            follow = {name for name, attack in self.made.robustness.attacks.items() if attack.uses_gradient}
            rows = doubted(rows, why, ON_GRADIENTS, {*follow, headline.NAME})
        if why := self.made.robustness.guessing.text:
            rows = doubted(rows, why, set(Kind) - {Kind.CLEAN})
        return rows
