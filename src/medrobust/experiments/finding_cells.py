"""What attacks do to the findings of images, for a classifier of several findings: one cell a finding, one for sets.

Each goal is attacked by itself; then what one goal gave counts for another that it reaches too: a finding that was
changed alone was changed, and one that was changed while nothing else happened to change was changed alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from medrobust.attacks import PGD, Attack, DeepFool, sweep
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments.context import Advance
from medrobust.images import UNKNOWN, Images, Labels, Logits
from medrobust.judging import judge
from medrobust.store import Result
from medrobust.threat import Ball, FindingGoal, Goal, GoalKind, Targeted

SET_GOALS = (GoalKind.ANY, GoalKind.HIDE_ALL, GoalKind.OCCURRING)
"""Goals that name no finding."""


BESIDE: Mapping[GoalKind, Attack] = {
    GoalKind.ANY: DeepFool(steps=20),
    GoalKind.HIDE_ALL: PGD(steps=20),
    GoalKind.OCCURRING: PGD(steps=20),
}
"""Tried too where there are gradients: DeepFool looks for the nearest of several boundaries; and where several
findings must change at once, a step along the sign of one gradient spoils what another needs."""


@dataclass(frozen=True)
class Threat:
    """attack: made for each goal; beside: tried too. eps: the sizes of the audit."""

    attack: Attack
    ball: type[Ball]
    eps: tuple[float, ...]
    seed: int
    beside: Mapping[GoalKind, Attack]


@dataclass
class Reached:
    """The smallest example of each image. min_eps: float32 (n,), inf where there is none; after: int64 (n, k), the
    decision there (the clean one where there is none). unconfirmed, no_gradient: bool (n,)."""

    min_eps: np.ndarray
    after: np.ndarray
    unconfirmed: np.ndarray
    no_gradient: np.ndarray

    def improve(self, other: Reached, where: np.ndarray) -> None:
        """Take over the smaller examples of ``other`` at ``where``, bool (n,)."""
        better = where & (other.min_eps < self.min_eps)
        self.min_eps = np.where(better, other.min_eps, self.min_eps)
        self.after = np.where(better[:, None], other.after, self.after)
        self.no_gradient &= ~better

    def put(self, other: Reached, index: np.ndarray) -> None:
        """Those of the images ``index`` are those of ``other``."""
        for field, value in vars(other).items():
            getattr(self, field)[index] = value

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """For a cell."""
        return {f"{name}.{field}": value for field, value in vars(self).items()}


def reached(
    classifier: Classifier, images: Images, goal: Goal, before: Labels, ids: tuple[str, ...], threat: Threat
) -> Reached:
    """One attack with one goal, judged: an example counts only where ``judge`` confirms it in float32.

    before: the clean decisions (n, k).
    """
    ball = threat.ball
    curve = sweep(threat.attack, classifier, images, goal, ball, threat.eps, seed=threat.seed, ids=ids)
    outcome = judge(classifier, images, curve.images, goal, ball(1.0 if ball.name == "linf" else torch.inf))
    claimed = torch.isfinite(curve.min_eps)
    confirmed = outcome.reached & (outcome.size <= curve.min_eps + 1e-6)
    min_eps = torch.where(claimed & confirmed, curve.min_eps, torch.inf)
    after = torch.where(torch.isfinite(min_eps)[:, None], outcome.after, before)
    return Reached(
        min_eps.numpy(), after.numpy(), (claimed & ~confirmed).numpy(), curve.inconclusive.numpy() & ~confirmed.numpy()
    )


def of_finding(classifier: Classifier, part: Dataset, finding: int, threat: Threat, advance: Advance) -> Result:
    """One finding turned in images that are read correctly in it: whatever else changes, and alone.

    Arrays: before (n, k); and for "one" and "alone" those of ``Reached``.
    """
    images, labels = part.tensors()
    logits = classifier.logits(images)
    before = classifier.head.decide(logits)
    one = torch.full_like(before, UNKNOWN)
    one[:, finding] = 1 - before[:, finding]
    turned = reached(classifier, images, Targeted(one), before, part.ids, threat)
    advance(len(images) // 2)
    # where nothing else changed, nothing smaller changes it alone: that is sought for the other images only
    solved = np.asarray(changed(before.numpy(), turned.after, part.labels).sum(1) == 1)
    alone = _nothing(before)
    alone.improve(turned, solved)
    if (rest := torch.from_numpy(np.flatnonzero(~solved))).numel():
        goal = FindingGoal(GoalKind.ONLY, finding).on(logits[rest], classifier.head, labels[rest])
        ids = tuple(part.ids[i] for i in rest.tolist())
        alone.put(reached(classifier, images[rest], goal, before[rest], ids, threat), rest.numpy())
    advance(len(images) - len(images) // 2)
    turned.improve(alone, np.ones(len(images), dtype=bool))
    return {}, {"before": before.numpy(), **turned.arrays("one"), **alone.arrays("alone")}


def of_sets(classifier: Classifier, part: Dataset, sets: np.ndarray | None, threat: Threat, advance: Advance) -> Result:
    """Goals for the whole set of findings. sets: those that occur; None where they are not known.

    Arrays: before (n, k); and for each goal those of ``Reached`` and "concerned", the images for which it means
    something.
    """
    images, labels = part.tensors()
    logits = classifier.logits(images)
    before = classifier.head.decide(logits)
    occurring = None if sets is None else torch.from_numpy(sets)
    arrays, results = {"before": before.numpy()}, {}
    for kind in SET_GOALS:
        if kind is GoalKind.OCCURRING and occurring is None:
            continue
        concerned = FindingGoal(kind).concerns(before, labels)
        results[kind] = result = _nothing(before)
        if concerned.any():
            index = concerned.nonzero()[:, 0]
            goal = _goal(kind, logits[index], classifier, labels[index], occurring)
            ids = tuple(part.ids[i] for i in index.tolist())
            some = reached(classifier, images[index], goal, before[index], ids, threat)
            if kind in threat.beside:
                other = replace(threat, attack=threat.beside[kind])
                some.improve(reached(classifier, images[index], goal, before[index], ids, other), np.ones(1, bool))
            result.put(some, index.numpy())
        arrays[f"{kind.value}.concerned"] = concerned.numpy()
        advance(len(images) // len(SET_GOALS))
    for result in results.values():  # whatever changes the set is a change of the set
        results[GoalKind.ANY].improve(result, np.asarray(changed(before.numpy(), result.after, part.labels).any(1)))
    return {}, arrays | {k: v for kind, result in results.items() for k, v in result.arrays(kind.value).items()}


def _goal(kind: GoalKind, logits: Logits, classifier: Classifier, labels: Labels, sets: torch.Tensor | None) -> Goal:
    return FindingGoal(kind).on(logits, classifier.head, labels, sets)


def _nothing(before: Labels) -> Reached:
    n = len(before)
    return Reached(
        np.full(n, np.inf, dtype=np.float32), before.numpy().copy(), np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    )


def changed(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (n, k): findings that are another after than before, among those whose label is known."""
    return np.asarray((before != after) & (labels != UNKNOWN))


def occurs(decisions: np.ndarray, labels: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """bool (n,): the set of findings is one of ``sets`` (m, k), at the findings whose label is known."""
    same = (decisions[:, None] == sets[None]) | (labels == UNKNOWN)[:, None]
    return np.asarray(same.all(2).any(1))
