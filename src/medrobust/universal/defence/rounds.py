"""The result of a round of a defence: every number on images held out, with its n and its 95 % interval.

A pool of perturbations is judged as one: an image counts by the share of the pool that fools it. The interval is that
of a yes or no for each image, which is never too narrow for a share; it speaks of these perturbations on other images.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust import stats
from medrobust.classifier import Classifier
from medrobust.images import Images, Lazy
from medrobust.stats import Estimate
from medrobust.universal.judging import judge
from medrobust.universal.outcome import UniversalOutcome
from medrobust.universal.perturbation import Universal


@dataclass(frozen=True)
class PoolResult:
    """A pool of perturbations against one classifier.

    fooling: Rf, the mean of the pool. success, base, new: Rs and its base rate, and Rs among the images not decided as
        the target before; None without a target.
    strongest: Rf (Rs with a target) of the one perturbation that did best on the images it was made from, so that
        none was picked on the images it is judged on; strongest_saved: after saving at 8 bits. accuracy: under it.
    pool: how many; zero: how many of them stayed zero, and why.
    """

    fooling: Estimate
    success: Estimate | None
    base: Estimate | None
    new: Estimate | None
    strongest: Estimate
    strongest_saved: Estimate
    accuracy: Estimate
    pool: int
    zero: int
    why: str

    @property
    def rate(self) -> Estimate:
        """The attacker's objective: Rs with a target, else Rf."""
        return self.fooling if self.success is None else self.success

    @property
    def inconclusive(self) -> bool:
        """No perturbation moved: nothing was tried, so nothing is known."""
        return self.zero == self.pool


@dataclass(frozen=True)
class Round:
    """A classifier after so many rounds (0: as it came).

    accuracy: on untouched images; recall: of each class. fresh: perturbations made against this classifier; old:
    those made against the one before, which it was trained on; first: those made against the classifier as it came
    (None in round 0). control: random perturbations of the same size.
    """

    number: int
    accuracy: Estimate
    recall: dict[str, Estimate]
    fresh: PoolResult
    old: PoolResult | None
    first: PoolResult | None
    control: PoolResult

    def plain(self) -> dict[str, object]:
        """As JSON; null where there was nothing to count."""
        return {k: _plain(v) for k, v in dataclasses.asdict(self).items()}

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> Round:
        """The round that ``plain`` gave."""
        pools = {k: _attacked(plain[k]) for k in ("fresh", "old", "first", "control")}
        recall = {name: _estimate(v) for name, v in plain["recall"].items()}
        return cls(plain["number"], _estimate(plain["accuracy"]), recall, **pools)  # type: ignore[arg-type]


def _attacked(plain: Mapping[str, Any] | None) -> PoolResult | None:
    if plain is None:
        return None
    fields: dict[str, Any] = {k: _estimate(v) if isinstance(v, list) else v for k, v in plain.items()}
    return PoolResult(**fields)


def _estimate(plain: list[float | None]) -> Estimate:
    return Estimate(*(math.nan if v is None else v for v in plain))  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class HeldOutImages:
    """The images held out, and one classifier's decisions on them: taken once, however many pools are judged.

    labels: (n,), or (n, k) of findings. groups: a patient for each image, or None.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Images | Lazy,
        labels: np.ndarray,
        groups: Sequence[object] | None,
        target: int | None,
    ) -> None:
        self.classifier, self.images, self.labels, self.groups = classifier, images, labels, groups
        self.target = target
        self._clean: np.ndarray | None = None

    def judge(self, v: Universal) -> UniversalOutcome:
        """One perturbation, whose target is that of the bench: a random one has none of its own."""
        outcome = judge(self.classifier, self.images, v, self.labels, self.groups, clean=self._clean)
        self._clean = outcome.clean
        return dataclasses.replace(outcome, target=self.target)

    def pool(self, vs: Sequence[Universal]) -> PoolResult:
        """Several perturbations as one, see the head of this file."""
        outcomes = [self.judge(v) for v in vs]
        best = outcomes[max(range(len(vs)), key=lambda i: vs[i].history[-1]["rate"] if vs[i].history else 0.0)]
        success = base = new = None
        if self.target is not None:
            success = self._mean([o.at_target(o.after) for o in outcomes])
            base = best.targeted_base
            away = ~best.at_target(best.clean)
            new = self._mean([o.at_target(o.after)[away] for o in outcomes], away)
        strongest = (best.fooling_rate, best.fooling_rate_saved)
        if best.targeted_success is not None and best.targeted_success_saved is not None:
            strongest = (best.targeted_success, best.targeted_success_saved)
        accuracy = best.accuracy_after
        assert accuracy is not None
        still = [v for v in vs if not v.nonzero]
        return PoolResult(
            fooling=self._mean([o.fooled for o in outcomes]),
            success=success,
            base=base,
            new=new,
            strongest=strongest[0],
            strongest_saved=strongest[1],
            accuracy=accuracy,
            pool=len(vs),
            zero=len(still),
            why=still[0].why if still else "",
        )

    def _mean(self, hits: list[np.ndarray], of: np.ndarray | None = None) -> Estimate:
        groups = self.groups if of is None else stats.members(self.groups, of)
        return stats.proportion(np.mean(np.stack(hits), 0), groups)
