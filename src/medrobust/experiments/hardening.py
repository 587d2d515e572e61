"""Adversarial training of a classifier, and what it costs: clean and under attack, before and after, on test images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from medrobust import code_digest, guessing, options, stats
from medrobust.attacks import Auto
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments import robustness_cells
from medrobust.experiments.checks import doubt
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step
from medrobust.experiments.defence import add_accuracy
from medrobust.experiments.gradient_check import checked
from medrobust.experiments.rows import MANY
from medrobust.experiments.system import groups
from medrobust.results import INCONCLUSIVE, OK, Kind, withstands
from medrobust.run_folder import RunFolder
from medrobust.store import Cell, Result, key
from medrobust.threat import Ball, Linf
from medrobust.training import METHODS, AdversarialTraining, check, further

TRAINING = "hardening"
"""Folder of the training's state until it is over."""
BEFORE, AFTER = 0, 1
"""Values of the column ``round``."""
NAME = "auto"
"""Of the attack that judges, in rows."""


@dataclass(frozen=True, kw_only=True)
class HardeningConfig:
    """method: a name of METHODS, with options after colons (trades:beta=3). eps: size that is trained against.

    epochs, minutes, lr, patience: as ``training.further`` takes them.
    """

    method: str
    eps: float
    epochs: int = 10
    minutes: float | None = None
    lr: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        if not self.eps > 0:
            raise InputError(f"--eps wants one size above 0 such as 4/255, got {self.eps:g}")
        if self.minutes is not None and not self.minutes > 0:
            raise InputError(f"--minutes must be a positive number, got {self.minutes:g}")
        if self.patience is not None and self.patience < 1:
            raise InputError(f"--patience must be 1 epoch or more, got {self.patience}")
        check(epochs=self.epochs, lr=self.lr)
        name, values = options.parse(self.method, METHODS, "method", hidden=("ball",))
        METHODS[name](Linf(0.0), **values)

    def trainer(self, ball: Callable[[float], Ball]) -> AdversarialTraining:
        """The method, ready to train. ball: of a size, such as Linf."""
        name, values = options.parse(self.method, METHODS, "method", hidden=("ball",))
        return METHODS[name](ball(self.eps), **values)


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of ``medrobust harden``; options: fields of a HardeningConfig."""
    return [CleanExperiment(context, gradient=False), HardeningExperiment(context, HardeningConfig(**options))]


class HardeningExperiment(Experiment):
    """The classifier after adversarial training, attacked afresh beside the one that was given."""

    name = "hardening"

    def __init__(self, context: Context, config: HardeningConfig) -> None:
        self.context, self.config, self.seed = context, config, context.config.seed
        self.trainer = config.trainer(context.ball)
        self.trainer.check(context.classifier.net)
        self.sizes = (config.eps / 2, config.eps, 2 * config.eps)

    def steps(self) -> Sequence[Step]:
        return [
            Step("adversarial training", lambda: self.hardened),
            Step("attack before", partial(self.attacked, BEFORE)),
            Step("attack after", partial(self.attacked, AFTER), ("adversarial training",)),
        ]

    @cached_property
    def hardened(self) -> Classifier:
        """Epochs that are finished are read from the run folder."""
        context, config = self.context, self.config
        return further(
            context.classifier,
            context.system.data,
            seed=self.seed,
            epochs=config.epochs,
            lr=config.lr,
            patience=config.patience,
            method=self.trainer,
            minutes=config.minutes,
            resume=context.store.run.entry(TRAINING) / key(self._trained)[:16],
            progress=context.progress,
        )

    @property
    def _trained(self) -> dict[str, object]:
        """What the weights depend on: a run with other settings or after an upgrade trains in a folder of its own."""
        config = self.config
        return {
            "from": self.context.classifier.digest(),
            "data": self.context.system.data.digest(),
            "method": {"title": self.trainer.title, **self.trainer.settings},
            "recipe": [config.epochs, config.minutes, config.lr, config.patience, self.seed],
            "code": [code_digest.of_module("medrobust.training.further"), code_digest.of_class(type(self.trainer))],
        }

    def classifier(self, round_: int) -> Classifier:
        """BEFORE or AFTER."""
        return self.hardened if round_ else self.context.classifier

    def attacked(self, round_: int) -> Cell:
        """min_eps (n,): the smallest of ``sizes`` that fools each image of the sample; 0 wrong before, inf never."""
        classifier, attack, context = self.classifier(round_), Auto(), self.context

        def compute(shard: Dataset, advance: Advance) -> Result:
            return robustness_cells.swept(attack, classifier, shard, context.ball, self.sizes, None, self.seed, advance)

        named = {
            "kind": "hardening attack",
            "network": classifier.digest(),
            "attack": code_digest.described(attack),
            "eps": self.sizes,
        }
        title = "Attacks on the hardened classifier" if round_ else "Attacks on the classifier as it was"
        return context.sharded(context.sample, title, named, compute)

    def decisions(self, round_: int) -> np.ndarray:
        """bool (n,) or (n, k): whether each test image, or each of its findings, is read rightly without an attack."""
        test, classifier = self.context.test, self.classifier(round_)
        cell = self.context.sharded(
            test,
            "Clean performance of the hardened classifier" if round_ else "Clean performance",
            {"kind": "clean"} if round_ == BEFORE else {"kind": "clean", "network": classifier.digest()},
            lambda shard, advance: robustness_cells.clean(classifier, shard, advance),
        )
        return np.asarray(cell.arrays["decision"])

    def save(self, run: RunFolder, *, keep_names: bool) -> None:
        """The hardened classifier, in model/."""
        self.hardened.save(run.entry("model"), keep_names)

    def outcome(self) -> ExperimentResult:
        context, outcome = self.context, ExperimentResult(self.context.rows())
        record = self.hardened.provenance["further"][-1]
        outcome.checks.append(checked(self.hardened, context.system.data.split("test"), self.seed))
        why = doubt(outcome.checks)
        test, patients = context.test, groups(context.test)
        right = {}
        for round_ in (BEFORE, AFTER):
            decision = self.decisions(round_)
            right[round_] = guessing.right(decision, test.labels)
            chance = guessing.of(decision == test.labels, test.labels, patients)
            note = "; ".join(filter(None, (why if round_ else "", chance.text and f"the classifier is {chance.text}")))
            add_accuracy(outcome.rows, round_, stats.proportion(right[round_], patients), self._recall(decision))
            outcome.rows.add(Kind.DEFENCE, "balanced_accuracy", chance.balanced, round=round_)
            smallest, status = self.attacked(round_).arrays["min_eps"], INCONCLUSIVE if note else OK
            for e in self.sizes:
                share = stats.proportion(withstands(smallest, e), context.patients)
                columns: dict[str, Any] = {"eps": e, "attack": NAME, "status": status, "note": note, "round": round_}
                outcome.rows.add(Kind.DEFENCE, "accuracy_attacked", share, **columns)
        change = stats.paired_difference(right[BEFORE], right[AFTER], patients)
        outcome.rows.add(Kind.DEFENCE, "accuracy_change", change, round=AFTER)
        outcome.conditions["hardening"] = {
            "method": self.config.method.partition(":")[0],
            "title": self.trainer.title,
            "source": self.trainer.source,
            "settings": self.trainer.settings,
            "eps": self.config.eps,
            "sizes": self.sizes,
            "epochs": record["training"]["epochs"],
            "epoch_kept": record["epoch_kept"],
            "minutes": self.config.minutes,
            "history": record["history"],
        }
        return outcome

    def _recall(self, decision: np.ndarray) -> dict[str, stats.Estimate]:
        """Of each class, or of each finding the share of images in which it is read rightly."""
        labels, classes, patients = self.context.test.labels, self.context.classifier.classes, groups(self.context.test)
        if labels.ndim == 2:
            known = labels != -1
            each = [(known[:, k], decision[:, k] == labels[:, k]) for k in range(len(classes))]
        else:
            each = [(labels == k, decision == labels) for k in range(len(classes) if len(classes) <= MANY else 0)]
        return {
            name: stats.proportion(right[of], stats.members(patients, of))
            for name, (of, right) in zip(classes, each, strict=False)
            if of.any()
        }
