"""Nested cross-validation: whole groups on one side, classes in their proportions, drawn by (seed, group)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from medrobust.data import splits
from medrobust.errors import InputError
from medrobust.training.evolved.table import FeatureTable


class OuterFold(NamedTuple):
    """One outer fold of one seed: everything is fitted on ``train``, and ``test`` is asked once, at the end."""

    seed: int
    fold: int
    train: np.ndarray
    test: np.ndarray

    @property
    def key(self) -> tuple[int, int]:
        """The key of this task's random numbers."""
        return self.seed, self.fold


def stratified(labels: np.ndarray, groups: np.ndarray, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, rest) positions of each fold. InputError where a class is missing on a side."""
    if folds < 2:
        raise InputError(f"cross-validation needs 2 folds or more, got {folds}")
    shares = {str(i): 1 / folds for i in range(folds)}
    side = splits.assign_groups([str(g) for g in groups], labels, shares, seed)
    out = [(np.flatnonzero(side != name), np.flatnonzero(side == name)) for name in shares]
    wanted = len(np.unique(labels))
    for train, rest in out:
        for part in (train, rest):
            if len(np.unique(labels[part])) < wanted:
                raise InputError(
                    f"{len(labels)} images do not give {folds} folds with every class on both sides; "
                    "take more images or fewer folds"
                )
    return out


def tasks(table: FeatureTable, seeds: Sequence[int], folds: int) -> list[OuterFold]:
    """All outer folds of all seeds, seed by seed; every image is tested once a seed."""
    return [
        OuterFold(seed, fold, train, test)
        for seed in seeds
        for fold, (train, test) in enumerate(stratified(table.labels, table.groups, folds, seed))
    ]


def inner(table: FeatureTable, task: OuterFold, folds: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, validation) positions in the table, both within the task's training part."""
    training = task.train
    # a seed of its own: the outer partition would be drawn again from the same numbers
    drawn = stratified(table.labels[training], table.groups[training], folds, 1_000_003 * (task.fold + 1) + task.seed)
    return [(training[a], training[b]) for a, b in drawn]
