"""The interface of problems: the value of each point of a space, for all tasks at once."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrobust.search import Box
from medrobust.training.evolved.fitted import Fitted
from medrobust.training.evolved.folds import OuterFold
from medrobust.training.evolved.reduction import Reduction
from medrobust.training.evolved.table import FeatureTable

DECAY = 1e-3
"""Of the sum of squared weights beside the mean cross-entropy, for every method (C = 1 / (2 n DECAY))."""
INPUTS = 32
"""Principal components at most."""
INNER = 3
"""Inner folds."""


class Problem(ABC):
    """S tasks (seeds x folds) and one space.

    Called with S x P decoded points it gives what each is worth, float (S, P), lower is better, from training images
    only. A candidate's worth does not depend on the others', up to rounding (a few units in the last place: a wider
    matrix product may add in another order).
    """

    space: Box
    differentiable = False

    def __init__(self, table: FeatureTable, tasks: Sequence[OuterFold]) -> None:
        self.table, self.tasks = table, list(tasks)

    @property
    def seeds(self) -> list[tuple[int, int]]:
        """The keys of the tasks' random numbers."""
        return [task.key for task in self.tasks]

    @abstractmethod
    def __call__(self, decoded: Any) -> Tensor: ...

    @abstractmethod
    def settle(self, best: Tensor) -> list[Fitted]:
        """The model of each task's best point (S, D), all else fitted on the task's training images."""

    def facts(self, best: Tensor) -> dict[str, object]:  # noqa: ARG002 - most have none
        """Details of the points found, one entry a task in each list."""
        return {}


@dataclass(frozen=True, eq=False)
class Side:
    """Images as an optimiser sees them: x float64 (n, f), labels int64 (n,), share (n,): sums to 1, as do classes."""

    x: np.ndarray
    labels: np.ndarray
    share: np.ndarray


@dataclass(frozen=True, eq=False)
class Prepared:
    """One task's images, scaled and reduced by what was fitted on ``fitted``; ``held`` was not looked at."""

    reduction: Reduction
    fitted: Side
    held: Side


def balanced(labels: np.ndarray, classes: int) -> np.ndarray:
    """float64 (n,): weights that sum to 1, each class the same in all."""
    counts = np.bincount(labels, minlength=classes)
    return np.asarray(1 / (classes * counts[labels]))


def prepared(table: FeatureTable, train: np.ndarray, held: np.ndarray, inputs: int) -> Prepared:
    """Reduced to ``inputs`` components by what the training rows alone tell."""
    reduction = Reduction.fit(table.features[train], inputs)
    sides = []
    for index in (train, held):
        labels = table.labels[index]
        sides.append(Side(reduction(table.features[index]), labels, balanced(labels, len(table.classes))))
    return Prepared(reduction, *sides)


def stacked(sides: Sequence[Side], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """(x (S, N, F), labels (S, N), share (S, N)), padded with zeros to the largest; padded rows have no share."""
    n, f = max(len(s.x) for s in sides), max(s.x.shape[1] for s in sides)
    x = torch.zeros(len(sides), n, f, dtype=dtype)
    labels = torch.zeros(len(sides), n, dtype=torch.int64)
    share = torch.zeros(len(sides), n, dtype=dtype)
    for i, side in enumerate(sides):
        m = len(side.x)
        x[i, :m, : side.x.shape[1]] = torch.from_numpy(side.x)
        labels[i, :m] = torch.from_numpy(side.labels)
        share[i, :m] = torch.from_numpy(side.share)
    return x, labels, share
