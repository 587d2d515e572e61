"""Is a classifier better than guessing? A network that is not cannot be said to be fooled, or to withstand anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medrobust import stats
from medrobust.images import UNKNOWN
from medrobust.stats import Estimate


class Guessing(NamedTuple):
    """balanced: balanced accuracy. level: what an answer that never changes reaches, 1 / number of classes tested."""

    balanced: Estimate
    level: float

    @property
    def no_better(self) -> bool:
        """Not shown to do better: the interval of its balanced accuracy reaches down to the level of guessing."""
        low = self.balanced.value if math.isnan(self.balanced.low) else self.balanced.low
        return not low > self.level

    @property
    def text(self) -> str:
        """In one line; empty where the classifier does better."""
        if not self.no_better:
            return ""
        b = self.balanced
        if not b.n:
            return "no better than guessing as far as is known: no image was tested"
        if self.level >= 1:
            return "no better than guessing as far as is known: all test images are of one class"
        qualifier = " as far as is known" if b.value > self.level else ""
        line = f"no better than guessing{qualifier}: balanced accuracy {b.value:.1%} ({b.low:.1%} to {b.high:.1%}, "
        return line + f"n = {b.n}), guessing gives {self.level:.{0 if self.level >= 0.01 else 1}%}"


def of(right: np.ndarray, labels: np.ndarray, groups: Sequence[object] | np.ndarray | None = None) -> Guessing:
    """From bool (n,), whether each image was read correctly, and int (n,), its class.

    Of several findings both are (n, k), with labels of 0, 1 and UNKNOWN: the mean over the findings that are present in
    some images and absent in others. Each end of its interval is the mean of those of the single
    findings: how findings of one image depend on each other is not known, and no dependence makes it wider.
    """
    right, labels = np.asarray(right, dtype=bool), np.asarray(labels)
    if labels.ndim == 2:
        each = [balanced_accuracy(*known(r, y, groups)) for r, y in zip(right.T, labels.T, strict=True) if varies(y)]
        return Guessing(mean_of(each, len(labels)), 0.5 if each else 1.0)
    present = np.unique(labels)
    return Guessing(balanced_accuracy(right, labels, groups), 1 / max(present.size, 1))


def right(decisions: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool (n,): whether each image was read correctly: its class, or every known finding of (n, k)."""
    hits = decisions == labels
    return np.asarray((hits | (labels == UNKNOWN)).all(1)) if labels.ndim == 2 else np.asarray(hits)


def varies(labels: np.ndarray) -> bool:
    """Whether a finding, labels (n,) of 0, 1 and UNKNOWN, is present in an image and absent in another."""
    return bool((labels == 1).any() and (labels == 0).any())


def known(
    values: np.ndarray, labels: np.ndarray, groups: Sequence[object] | np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """values (n,), labels (n,) and groups of the images in which a finding is known."""
    kept = labels != UNKNOWN
    return values[kept], labels[kept], None if groups is None else np.asarray(groups)[kept]


def mean_of(each: Sequence[Estimate], n: int) -> Estimate:
    """Mean of estimates that may depend on each other in any way; its ends are the means of theirs."""
    if not each:
        return stats.NOTHING
    value, low, high = (float(np.mean([e[i] for e in each])) for i in range(3))
    return Estimate(value, low, high, n)


def balanced_accuracy(
    right: np.ndarray, labels: np.ndarray, groups: Sequence[object] | np.ndarray | None = None
) -> Estimate:
    """Mean over the classes that have images of the share read correctly, with its 95 % interval."""
    if not labels.size:
        return stats.NOTHING
    whose = None if groups is None else np.asarray(groups)
    recalls = [
        stats.proportion(right[labels == k], None if whose is None else whose[labels == k]) for k in np.unique(labels)
    ]
    whole = stats.proportion(right, whose)
    # the classes are independent samples: Zou & Donner's interval of a sum (2008, Stat Med 27:1693), each side by
    # itself; and with one or two images a class, classes tell nothing of their own spread: never narrower than that
    # of the plain accuracy
    value = float(np.mean([e.value for e in recalls]))
    below = max(_sum([e.value - e.low for e in recalls]) / len(recalls), whole.value - whole.low)
    above = max(_sum([e.high - e.value for e in recalls]) / len(recalls), whole.high - whole.value)
    return Estimate(value, max(0.0, value - below), min(1.0, value + above), labels.size)


def _sum(sides: Sequence[float]) -> float:
    """Length of a side of the interval of a sum of independent shares, from those of theirs."""
    return float(np.sqrt(np.square(sides).sum()))
