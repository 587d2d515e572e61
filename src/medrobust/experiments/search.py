"""KeptNetworks trained by meta-heuristic search beside gradient baselines: one table of features, one protocol.

The protocol of a fair comparison: every method gets the same number of evaluations (a gradient counts as three), the
same space, first points, penalty and stopping rule (the budget); whole patients are dealt into outer folds anew for
every seed, and all that is fitted (scaling, principal components, masks, hyper-parameters, thresholds, weights) is
fitted on training folds. Test images are used once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np

from medrobust.experiments.accuracy_matched import AccuracyMatchedConfig, AttackedNetworks
from medrobust.experiments.conditions import described
from medrobust.experiments.config import attack_named
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.search_config import SearchConfig
from medrobust.experiments.search_rows import MethodComparison
from medrobust.experiments.search_system import (
    SearchImages,
    TableSystem,
    classifier,
    divided,
    features_of,
    is_classifier,
)
from medrobust.results import Rows
from medrobust.run_folder import RunFolder
from medrobust.store import Cell, Result
from medrobust.training import evolved
from medrobust.training.evolved import QUESTIONS, FeatureTable, Fitted, OuterFold, Problem

FEATURES, FITTED, ATTACKED = "features", "features of training images", "networks to attack"
"""Names of steps that others need."""


def trained(problem: Problem, question: str, method: str, evaluations: int) -> Result:
    """One method: a network for every seed and fold.

    facts: evaluations, seconds of one processor in all, and what was found. arrays: probability, float32 (seeds, n, k),
    of each image from the network of the fold that it was held out of; at, curve, clock and worth as ``evolved.Found``.
    """
    trained = evolved.method(question, method)(problem, evaluations)
    table, seeds = problem.table, sorted({t.seed for t in problem.tasks})
    probability = np.full((len(seeds), len(table), len(table.classes)), np.nan, dtype=np.float32)
    for task, network in zip(problem.tasks, trained.fitted, strict=True):
        probability[seeds.index(task.seed), task.test] = network.probabilities(table.features[task.test])
    facts = {"evaluations": trained.evaluations, "seconds": trained.seconds, "found": trained.facts}
    arrays = {"at": trained.at, "curve": trained.curve, "clock": trained.clock, "worth": trained.worth}
    return facts, {"probability": probability, **arrays}


class SearchData:
    """The table that is searched, its folds, and the images behind it where there are any."""

    def __init__(self, context: Context, config: SearchConfig, features: str) -> None:
        self.context, self.config, self.features = context, config, features
        self._problem: tuple[str, Problem] | None = None

    @cached_property
    def images(self) -> SearchImages | None:
        """None for a table without images."""
        if isinstance(self.context.tested, TableSystem):
            return None
        system, config = self.context.system, self.context.config
        classifies, limit = is_classifier(config, self.features), config.limit
        return divided(
            system.data, system.classifier, classifies, limit=limit, seed=config.seed, healthy=config.healthy
        )

    @cached_property
    def table(self) -> FeatureTable:
        tested = self.context.tested
        if isinstance(tested, TableSystem):
            return tested.table
        assert self.images is not None
        return features_of(self.images, self.images.compared, self.context.kept, self.context.progress)

    @cached_property
    def tasks(self) -> list[OuterFold]:
        return evolved.tasks(self.table, range(self.config.seeds), self.config.folds)

    def problem(self, question: str) -> Problem:
        """Of all tasks; that of one question at a time, for its tensors are large."""
        if self._problem is None or self._problem[0] != question:
            self._problem = question, QUESTIONS[question].problem(self.table, self.tasks)
        return self._problem[1]

    @cached_property
    def fitted(self) -> FeatureTable:
        """Of the images that the networks which are kept are fitted on."""
        assert self.images is not None
        return features_of(self.images, self.images.fitted, self.context.kept, self.context.progress)

    @property
    def steps(self) -> list[Step]:
        """That read the features."""
        return [] if self.images is None else [Step(FEATURES, lambda: self.table)]

    @property
    def info(self) -> dict[str, object]:
        """For results.json."""
        table, images = self.table, self.images
        return {
            "n": len(table),
            "groups": len(np.unique(table.groups)),
            "patients": None if images is None else images.patients,
            "counts": np.bincount(table.labels, minlength=len(table.classes)).tolist(),
            "features": table.features.shape[1],
            "features_kind": "as measured" if images is None else self.features,
            "source": None if images is None else images.source.provenance.get("architecture"),
            "note": "" if images is None else images.note,
            "limit": self.context.config.limit,
            "seeds": self.config.seeds,
            "folds": self.config.folds,
        }


class SearchComparison(Experiment):
    """Every method of one question in cross-validation."""

    def __init__(self, data: SearchData, question: str) -> None:
        self.data, self.question, self.name = data, question, f"search {question}"
        self.methods, self.evaluations = data.config.names(question), data.config.evaluations(question)

    def steps(self) -> Sequence[Step]:
        each = [Step(f"{self.name} {m}", partial(self._cell, m), (FEATURES,)) for m in self.methods]
        return [*self.data.steps, *each]

    def _cell(self, method: str) -> Cell:
        data, question, context = self.data, self.question, self.data.context
        spec = {
            "kind": "search",
            "table": data.table.digest(),
            "question": question,
            "method": method,
            "budget": self.evaluations,
            "seeds": data.config.seeds,
            "folds": data.config.folds,
            "optimiser": evolved.code(question, method),
        }

        def compute() -> Result:
            context.progress.start(f"Searching {QUESTIONS[question].title}: {method}", 1)
            try:
                return trained(data.problem(question), question, method, self.evaluations)
            finally:
                context.progress.stop()

        return context.kept(spec, compute)

    def outcome(self) -> ExperimentResult:
        outcome, data = ExperimentResult(rows_of(self.data.context)), self.data
        cells = {method: self._cell(method) for method in self.methods}
        compared = MethodComparison(self.question, cells, data.table, data.tasks)
        compared.add_scores(outcome.rows)
        compared.add_differences(outcome.rows)
        compared.add_evaluations(outcome.rows)
        compared.add_training(outcome.rows)
        compared.add_ranks(outcome.rows)
        # the decisions of what gives the features are not used, and nothing is attacked here
        unused: dict[str, object] = {"norm": "", "eps": [], "head": "", "threshold": None}
        unused |= dict.fromkeys(("n_attacked", "n_patients_attacked"))
        outcome.conditions = {
            **unused,
            "search": data.info,
            "searched": {self.question: compared.info(self.evaluations)},
        }
        outcome.arrays = {f"search.{self.question}.{k}": v for k, v in compared.arrays().items()}
        if data.images is not None and data.context.system.admitted.order.passed is not None:
            outcome.checks = [data.context.system.admitted.order]
        return outcome


class KeptNetworks(Experiment):
    """The network of every method, fitted on all training images: a classifier that audits take, in models/."""

    name = "networks"

    def __init__(self, data: SearchData) -> None:
        self.data = data
        self.named = [(q, m) for q in data.config.questions for m in data.config.names(q)]

    def steps(self) -> Sequence[Step]:
        each = [Step(f"network {q} {m}", partial(self._cell, q, m), (FITTED,)) for q, m in self.named]
        return [Step(FITTED, lambda: self.data.fitted), *each]

    def _cell(self, question: str, method: str) -> Cell:
        table, evaluations = self.data.fitted, self.data.config.evaluations(question)

        def compute() -> Result:
            everything = np.arange(len(table))
            problem = QUESTIONS[question].problem(table, [OuterFold(0, 0, everything, everything)])
            return {}, evolved.method(question, method)(problem, evaluations).fitted[0].arrays()

        spec = {"kind": "search network", "table": table.digest(), "question": question, "method": method}
        code = evolved.code(question, method)
        return self.data.context.kept({**spec, "budget": evaluations, "optimiser": code}, compute)

    def outcome(self) -> ExperimentResult:
        return ExperimentResult(rows_of(self.data.context))

    def save(self, run: RunFolder, *, keep_names: bool) -> None:
        """models/QUESTION/METHOD of every network."""
        images = self.data.images
        assert images is not None
        for question, method in self.named:
            info = {"question": question, "method": method, "budget": self.data.config.evaluations(question)}
            network = Fitted.of_arrays(self._cell(question, method).arrays)
            made = classifier(images, network, info | {"images": len(self.data.fitted)})
            made.save(run.entry("models") / question / method, keep_names)


class UnderAttack(Experiment):
    """KeptNetworks of several searches under attack, beside accuracy-matched controls trained by gradients."""

    name = "networks under attack"

    def __init__(self, data: SearchData, config: AccuracyMatchedConfig) -> None:
        assert data.images is not None
        self.context, self.config = data.context, config
        self.attacked = AttackedNetworks(config, data.images, data.context.kept, data.context.progress)

    def steps(self) -> Sequence[Step]:
        attacks = [
            Step(f"attack {name} {seed}", partial(self.attacked.attack, name, seed), (ATTACKED,))
            for name, seed in self.config.networks
        ]
        return [Step(ATTACKED, lambda: self.attacked.networks), *attacks]

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.context.rows())
        self.attacked.add_rows(outcome.rows)
        info, attack = self.attacked.info, attack_named(self.config.attack)
        at = {"norm": "Linf", "eps": self.attacked.sizes, "n_attacked": info["n"]}
        outcome.conditions = {**at, "attacks": {self.config.name: described(attack)}, "attacked_networks": info}
        return outcome


def rows_of(context: Context) -> Rows:
    """Of numbers that rest on no attack."""
    rows = context.rows()
    rows.norm = ""
    return rows


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of ``medrobust search``. options: features; search, fields of a SearchConfig; attacked, fields of an
    AccuracyMatchedConfig, or None."""
    fields = dict(options["search"])
    config = SearchConfig(**fields | {name: tuple(fields[name]) for name in ("questions", "methods")})
    data = SearchData(context, config, options["features"])
    experiments: list[Experiment] = [SearchComparison(data, question) for question in config.questions]
    if not isinstance(context.tested, TableSystem):
        experiments.append(KeptNetworks(data))
        if (attacked := options["attacked"]) is not None:
            experiments.append(
                UnderAttack(data, AccuracyMatchedConfig(**attacked | {"methods": tuple(attacked["methods"])}))
            )
    return experiments
