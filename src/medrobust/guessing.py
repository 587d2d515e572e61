"""Is a classifier better than guessing? A network that is not cannot be said to be fooled, or to withstand anything."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medrobust import stats
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
        line = f"no better than guessing: balanced accuracy {b.value:.1%} ({b.low:.1%} to {b.high:.1%}, n = {b.n}), "
        return line + f"guessing gives {self.level:.{0 if self.level >= 0.01 else 1}%}"


def of(right: np.ndarray, labels: np.ndarray, groups: Sequence[object] | np.ndarray | None = None) -> Guessing:
    """From bool (n,), whether each image was read correctly, and int (n,), its class."""
    right, labels = np.asarray(right, dtype=bool), np.asarray(labels)
    present = np.unique(labels)
    return Guessing(balanced_accuracy(right, labels, groups), 1 / max(present.size, 1))


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
    # the classes are independent samples: the variance of the mean of recalls is the sum of theirs over k^2
    half = float(np.sqrt(sum(((e.high - e.low) / 2) ** 2 for e in recalls))) / len(recalls)
    # with one or two images a class, classes tell nothing of their own spread: never narrower than the plain accuracy
    half = max(half, (whole.high - whole.low) / 2)
    mean = float(np.mean([e.value for e in recalls]))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), labels.size)
