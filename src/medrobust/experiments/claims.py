"""From numbers an image to what may be claimed: how easily each image breaks, which measure foretells it, and whether
one kind of images has larger numbers than another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medrobust import code_digest, stats
from medrobust.attacks import Attack
from medrobust.data import Dataset
from medrobust.detectors import clustered
from medrobust.experiments import robustness_cells
from medrobust.experiments.adversarial_pairs import AdversarialPairs
from medrobust.experiments.catalogue import LOG_GRID
from medrobust.stats import Estimate
from medrobust.store import Result
from medrobust.threat import Ball

CONFIRMED, NOT_CONFIRMED, CANNOT_SAY = "confirmed", "not confirmed", "cannot say"

MIN_EPS = "min eps"


@dataclass(frozen=True)
class Claim:
    """What Ma et al. 2020 say of medical images beside natural ones, and the number an image that tells.

    name: EPS_STAR, a name of ``explain.MEASURES``, or of a number an image of ``Explanation``. more: it is said to be
    larger on medical images.
    """

    text: str
    by: str
    name: str
    more: bool

    @property
    def words(self) -> str:
        return "more" if self.more else "less"


CLAIMS = (
    Claim("Medical images fall to smaller changes", "eps*", MIN_EPS, False),
    Claim("Their gradient spreads over more pixels", "pixels holding half the gradient", "saliency-half", True),
    Claim("Their gradient spreads over more pixels", "integrated gradients", "integrated-half", True),
    Claim("Their gradient spreads over more pixels", "SmoothGrad", "smooth-half", True),
    Claim("Their gradients are larger", "slope of the loss (L1)", "slope-l1", True),
    Claim("Their gradients are larger", "slope of the lead (L1)", "margin-slope", True),
    Claim("The middle layer sees less in them", "rank over the largest possible", "relative-rank", False),
    Claim("The middle layer sees less in them", "spectral entropy of the channel mean", "spectral-entropy", False),
    Claim("The middle layer sees less in them", "spatial entropy of the channel mean", "spatial-entropy", False),
    Claim("The loss rises more steeply around them", "rise at 1/255 along the gradient", "rise-gradient", True),
    Claim("The loss rises more steeply around them", "rise at 1/255 along random signs", "rise-random", True),
    Claim("The loss rises more steeply around them", "largest Hessian eigenvalue", "curvature", True),
    Claim("An attack moves their Grad-CAM further", "shift under the attack", "cam-shift.change", True),
)
"""Said of pictures in the paper; each is held to numbers here."""


def measured_min_eps(
    pairs: AdversarialPairs, attack: Attack, ball: type[Ball], eps: Sequence[float] = LOG_GRID
) -> np.ndarray:
    """float64 (n,): for each of these images the smallest of ``eps`` at which the attack succeeds, infinite where it
    does not. One cell a shard."""
    grid = tuple(eps)

    def compute(part: Dataset) -> Result:
        _, arrays = robustness_cells.swept(attack, pairs.classifier, part, ball, grid, None, pairs.seed, lambda _: None)
        return {}, {"min_eps": arrays["min_eps"].astype(np.float64)}

    key = {"attack": code_digest.described(attack), "norm": ball.name, "eps": grid}
    return _each(pairs, "claims min eps", key, compute, "min_eps")


def _each(
    pairs: AdversarialPairs, kind: str, key: Mapping[str, object], compute: Callable[[Dataset], Result], name: str
) -> np.ndarray:
    done = []
    for part in pairs.shards():
        spec = pairs.key(part, kind=kind, **key)
        done.append(pairs.store.once(spec, lambda part=part: compute(part)).arrays[name])  # type: ignore[misc]
    return np.concatenate(done)


def foretells(numbers: Mapping[str, np.ndarray], min_eps: np.ndarray, patients: np.ndarray) -> dict[str, Estimate]:
    """Each measure's rank correlation with eps*, whole patients drawn for the interval."""
    return {name: stats.spearman(values, min_eps, patients) for name, values in numbers.items()}


def more_often(first: np.ndarray, second: np.ndarray, first_whose: np.ndarray, second_whose: np.ndarray) -> Estimate:
    """How often an image of the first set has the larger number, against one of the second; 0.5: no difference.

    The area under the ROC curve (Mann & Whitney 1947), its interval clustered by patient (Obuchowski 1997). NaN are
    left out, infinities compare like numbers. n: images of both sets.
    """
    sides = []
    for values, patients in ((first, first_whose), (second, second_whose)):
        defined = ~np.isnan(values)
        top = np.finfo(float).max
        sides.append((np.clip(values[defined], -top, top), np.asarray(patients)[defined].astype(str)))
    (x, x_whose), (y, y_whose) = sides
    return clustered.auroc(y, x, np.zeros(len(y), int), np.zeros(len(x), int), y_whose, x_whose)


def verdict(estimates: Sequence[Estimate], more: bool, level: float = 0.5) -> str:
    """Of the claim that every number of ``found`` lies above ``level`` (more), or that every one lies below it.

    Confirmed where all intervals do, not confirmed where one lies on the other side altogether, else it cannot be
    said.
    """
    if not estimates or any(np.isnan(e.value) for e in estimates):
        return CANNOT_SAY
    if any(e.high < level if more else e.low > level for e in estimates):
        return NOT_CONFIRMED
    return CONFIRMED if all(e.low > level if more else e.high < level for e in estimates) else CANNOT_SAY
