"""`medrobust explain`: one classifier, others beside it, and how the first differs from each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import json_files, stats
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.experiments import checks
from medrobust.experiments.admission import admit
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.config import ask
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.explanation import Explanation
from medrobust.experiments.explanation_config import ExplanationConfig
from medrobust.experiments.finding_sets import as_sets, of_sets, sets
from medrobust.experiments.system import assemble
from medrobust.results import FORMAT, INCONCLUSIVE, OK, Kind, Row, doubted

IMAGE = "image."
"""Begins the names of arrays with one number an image."""


class SecondExplanation(Experiment):
    """Explanations of another classifier, which has checks of its own."""

    def __init__(self, explanation: Explanation) -> None:
        self.explanation, self.name, self.place = explanation, explanation.name, explanation.place
        self.clean = CleanExperiment(explanation.context)

    def steps(self) -> Sequence[Step]:
        own = [Step(f"{self.name} {s.name}", s.work, s.needs) for s in self.clean.steps()]
        return [*self.explanation.steps(), *own]

    @cached_property
    def _outcome(self) -> ExperimentResult:
        outcome, clean = self.explanation.outcome(), self.clean.outcome()
        why = checks.doubt(clean.checks) or clean.guesses
        outcome.rows.rows = doubted(outcome.rows.rows, why, (Kind.EXPLANATION,))
        # of this classifier alone: they take the belief from no other
        number = f"classifier {self.place + 1}"
        outcome.checks = [replace(c, decisive=False, detail=f"{number}: {c.detail}") for c in clean.checks]
        outcome.of_another, outcome.guesses = True, why
        return outcome

    def outcome(self) -> ExperimentResult:
        return self._outcome


class Earlier(Experiment):
    """The first classifier of a finished run of `medrobust explain`, as that run left it."""

    def __init__(self, context: Context, folder: Path, place: int) -> None:
        self.context, self.folder, self.place, self.name = context, folder, place, f"explanation {place}"

    def steps(self) -> Sequence[Step]:
        return ()

    @cached_property
    def _outcome(self) -> ExperimentResult:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        try:
            results = json_files.read_results(self.folder / "results.json")
            if results.get("kind") != "explain" or results.get("format") != FORMAT:
                raise InputError(f"{self.folder} is the run of another command; give one that medrobust explain made")
            arrays = load_file(self.folder / "figures.safetensors")
            info = results["conditions"]["explained"]["0"]
            plain = [r for r in results["rows"] if r["kind"] == Kind.EXPLANATION and not ("beside" in r or "than" in r)]
            read = [Row.read(r) for r in plain]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{self.folder} holds no finished run of medrobust explain: run it first") from error
        rows = self.context.rows()
        rows.rows = [replace(row, more={**row.more, "beside": self.place}) for row in read]
        own, here = "explain.0.", f"explain.{self.place}."
        kept = {here + k.removeprefix(own): v for k, v in arrays.items() if k.startswith(own)}
        if (picture := kept.get(f"{here}tsne")) is not None:
            self.context.store.run.write_bytes(f"tsne-{self.place}.png", picture.tobytes())
        shown = {k: kept.pop(k) for k in list(kept) if k.startswith(f"{here}gallery.")}
        about: dict[str, object] = {"explained": {str(self.place): info}}
        return ExperimentResult(rows, conditions=about, arrays=kept, pictures=shown, of_another=True)

    def outcome(self) -> ExperimentResult:
        return self._outcome


class Pairs(Experiment):
    """For every number that two classifiers have of an image: the share of pairs in which the first one's is larger.

    0.5: no difference; with DeLong's interval. Layers differ between networks and are left out.
    """

    name = "pairs"

    def __init__(self, first: Explanation, others: Sequence[SecondExplanation | Earlier]) -> None:
        self.first, self.others = first, others

    def steps(self) -> Sequence[Step]:
        return ()

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.first.context.rows())
        of_first = image_numbers(self.first.outcome(), 0)
        for other in self.others:
            measured = other.outcome()
            of_other = image_numbers(measured, other.place)
            for name in [n for n in of_first if n in of_other and "@" not in n]:
                first, second = (v[np.isfinite(v)] for v in (of_first[name], of_other[name]))
                e = stats.auroc(np.concatenate([second, first]), np.arange(len(second) + len(first)) >= len(second))
                metric, _, when = name.partition(".")
                note = measured.guesses or ("" if np.isfinite(e.value) else "nothing to compare")
                outcome.rows.add(
                    Kind.EXPLANATION,
                    "larger",
                    e._replace(n=len(first)),
                    status=INCONCLUSIVE if note else OK,
                    note=note,
                    measure=metric,
                    when=when or "clean",
                    than=other.place,
                    n_other=len(second),
                )
        return outcome


def image_numbers(outcome: ExperimentResult, place: int) -> dict[str, np.ndarray]:
    """By name, one number an image, of the classifier at that place."""
    prefix = f"explain.{place}.{IMAGE}"
    return {k.removeprefix(prefix): v for k, v in outcome.arrays.items() if k.startswith(prefix)}


def options(config: ExplanationConfig, second: str | None, beside: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For ``experiments``, as JSON. second: folder of a classifier. beside: what ``config.ask`` takes of each."""
    return {"explanation": asdict(config), "second": second, "beside": [dict(b) for b in beside]}


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of `medrobust explain`; options: see ``options``."""
    config = ExplanationConfig.read(options["explanation"])
    second = None if options["second"] is None else partial(_second, context, options["second"])
    first = Explanation(context, config, second=second)
    others = [_beside(context, config, given, place) for place, given in enumerate(options["beside"], start=1)]
    return [first, CleanExperiment(context), *others, *([Pairs(first, others)] if others else [])]


def _beside(
    context: Context, config: ExplanationConfig, given: Mapping[str, Any], place: int
) -> SecondExplanation | Earlier:
    """Another classifier, with layers of its own; or what an earlier run found."""
    folder = Path(given["model"])
    if (folder / "results.json").is_file():
        return Earlier(context, folder, place)
    shared = {"norm": context.config.norm, "eps": context.config.eps, "seed": context.config.seed, "train": False}
    spec = ask(**given, **shared, trust_code=context.config.trust_code)
    system = assemble(spec, None, context.progress, str(context.classifier.device))
    if system.classifier.head.multilabel:
        system = as_sets(system)
    own = Context(system, spec, context.store, context.progress, context.study)
    return SecondExplanation(Explanation(own, replace(config, layers=None, cam_layer=None), place=place))


def _second(context: Context, folder: str) -> Classifier:
    """An independently trained classifier of the same data."""
    loaded = Classifier.load(folder, trust_code=context.config.trust_code)
    loaded.outputs = context.config.outputs or loaded.outputs
    loaded.net.to(context.classifier.device)
    several = context.system.of_findings
    admit(loaded, context.test if several is None else several.test, context.progress)
    if several is None or not loaded.head.multilabel:
        return loaded
    order = several.classifier.classes
    return of_sets(loaded, sets(len(order), several.data.labels), order)
