"""Training against universal perturbations, round by round, each judged by fresh ones made against it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from medrobust import guessing
from medrobust.errors import InputError
from medrobust.experiments.checks import doubt
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.gradient_check import checked
from medrobust.experiments.perturbation import PerturbationConfig, goal_of
from medrobust.experiments.system import groups
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.run_folder import RunFolder
from medrobust.stats import Estimate
from medrobust.store import Result
from medrobust.threat import Ball
from medrobust.universal.defence import DEFENCES, Defence, Hardened, PoolResult

ROUNDS = "rounds"
"""Folder of the rounds that are finished."""
IMAGES = 256
"""Decoded at a time."""


@dataclass(frozen=True, kw_only=True)
class DefenceConfig(PerturbationConfig):
    """defence: a name of DEFENCES; rounds, epochs, perturbations, limit, lr as its class takes them.

    judged: test images that judge every round, at most; None: all.
    """

    defence: str = "retrain"
    rounds: int = 5
    epochs: int = 5
    perturbations: int | None = None
    limit: int | None = 300
    lr: float | None = None
    judged: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.defence not in DEFENCES:
            raise InputError(f"--defence {self.defence!r} is not known; choose {' or '.join(DEFENCES)}")
        _ = self.trainer

    @property
    def trainer(self) -> Defence:
        """The defence, ready to be called."""
        most = {} if self.perturbations is None else {"perturbations": self.perturbations}
        make = DEFENCES[self.defence]
        return make(rounds=self.rounds, epochs=self.epochs, limit=self.limit, lr=self.lr, **most)


def experiments(context: Context, options: Mapping[str, Any]) -> list[Experiment]:
    """Of ``medrobust defend``; options: fields of a DefenceConfig."""
    return [CleanExperiment(context, gradient=False), DefenceExperiment(context, DefenceConfig(**options))]


class DefenceExperiment(Experiment):
    """One defence: the hardened classifier, and what fresh perturbations do to it after every round."""

    name = "defence"

    def __init__(self, context: Context, config: DefenceConfig) -> None:
        self.context, self.config, self.seed = context, config, context.config.seed
        self.data, self.trainer, self.maker = context.system.data, config.trainer, config.maker
        self.target = config.target_index(context.classifier)
        self.test = self.data.split("test").sample(config.judged, self.seed)

    def steps(self) -> Sequence[Step]:
        return [Step("defence", lambda: self.hardened)]

    @cached_property
    def ball(self) -> Ball:
        return self.config.ball(self.data.split("train").sample(self.config.measured, self.seed))

    @cached_property
    def hardened(self) -> Hardened:
        """Rounds that are finished are read from the run folder."""
        return self.trainer(
            self.context.classifier,
            self.data,
            goal_of(self.target),
            self.ball,
            method=self.maker,
            test=self.test,
            seed=self.seed,
            folder=self.context.store.run.entry(ROUNDS),
            progress=self.context.progress,
        )

    @cached_property
    def guessing(self) -> guessing.Guessing:
        """Whether the hardened classifier is better than an answer that never changes."""
        classifier = self.hardened.classifier

        def compute() -> Result:
            parts = [classifier.predict(images) for images, _, _ in self.test.batches(IMAGES)]
            return {}, {"decision": torch.cat(parts).numpy()}

        key = {"kind": "hardened", "hardened": classifier.digest()}
        right = self.context.cell(self.test, key, compute).arrays["decision"] == self.test.labels
        return guessing.of(right, self.test.labels, groups(self.test))

    def save(self, run: RunFolder, *, keep_names: bool) -> None:
        """The hardened classifier, in model/."""
        self.hardened.classifier.save(run.entry("model"), keep_names)

    def outcome(self) -> ExperimentResult:
        outcome, hardened, config = ExperimentResult(self.context.rows()), self.hardened, self.config
        if self.maker.opens:
            # training changes weights, not how the gradient is hidden; the last network is the one to be believed
            outcome.checks.append(checked(hardened.classifier, self.data.split("test"), self.seed))
        why, last = doubt(outcome.checks), hardened.rounds[-1].number
        guesses = (
            "" if not last or not self.guessing.text else f"after the defence the classifier is {self.guessing.text}"
        )
        attack, eps = config.name, float(self.ball.eps)
        for round_ in hardened.rounds:
            add_accuracy(outcome.rows, round_.number, round_.accuracy, round_.recall)
            of_round = "; ".join(filter(None, (why, guesses if round_.number == last else "")))
            for name, attacked in (("fresh", round_.fresh), ("old", round_.old), ("first", round_.first)):
                add_pool(outcome.rows, attacked, round=round_.number, pool=name, doubt=of_round, attack=attack, eps=eps)
            random = guesses if round_.number == last else ""
            add_pool(
                outcome.rows, round_.control, round=round_.number, pool="random", doubt=random, attack=attack, eps=eps
            )
        outcome.rows.add(Kind.DEFENCE, "balanced_accuracy", self.guessing.balanced, round=last)
        verdict = f"Inconclusive: {guesses}." if guesses else hardened.verdict
        outcome.conditions["defence"] = {
            "defence": config.defence,
            "title": self.trainer.title,
            "source": self.trainer.source,
            "settings": self.trainer.settings,
            "method": {"name": config.name, "title": self.maker.title, "settings": self.maker.settings},
            "target": self.target,
            "zeta": config.share,
            "eps": float(self.ball.eps),
            "n_judged": len(self.test),
            "pool": hardened.rounds[0].fresh.pool,
            "rounds": [r.number for r in hardened.rounds],
            "still": [
                {"round": r.number, "zero": r.fresh.zero, "why": r.fresh.why} for r in hardened.rounds if r.fresh.zero
            ],
            "verdict": f"Inconclusive: {why}. {verdict}" if why and not guesses else verdict,
            "protects": hardened.protects and not (why or guesses),
            "stopped": hardened.stopped,
            "guesses": guesses,
        }
        return outcome


def add_accuracy(rows: Rows, number: int, accuracy: Estimate, recall: Mapping[str, Estimate]) -> None:
    """On untouched images, after a round."""
    rows.add(Kind.DEFENCE, "accuracy", accuracy, round=number)
    for name, share in recall.items():
        rows.add(Kind.DEFENCE, "recall", share, class_name=name, round=number)


def add_pool(rows: Rows, attacked: PoolResult | None, *, attack: str, doubt: str = "", **columns: Any) -> None:
    """What several perturbations of one origin do; strongest: of the one that did best where it was made."""
    if attacked is None:
        return
    random = columns["pool"] == "random"
    doubts = [doubt, attacked.why if attacked.inconclusive and not random else ""]
    note = "; ".join(filter(None, doubts))
    metrics = {
        "fooling_rate": attacked.fooling,
        "targeted_success": attacked.success,
        "targeted_base": attacked.base,
        "targeted_success_new": attacked.new,
        "strongest": attacked.strongest,
        "strongest_saved": attacked.strongest_saved,
        "accuracy_strongest": attacked.accuracy,
    }
    for metric, estimate in metrics.items():
        if estimate is not None:
            status, name = INCONCLUSIVE if note else OK, "random" if random else attack
            rows.add(Kind.DEFENCE, metric, estimate, attack=name, status=status, note=note, **columns)
