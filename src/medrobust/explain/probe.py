"""How far apart groups of images lie in a network's features: a cross-validated linear probe and the silhouette.

A t-SNE picture (``detectors.embedding``) shows neighbourhoods and proves nothing; these are numbers with an interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from medrobust import stats
from medrobust.errors import InputError
from medrobust.stats import Estimate

FOLDS = 5


@dataclass(frozen=True)
class Separability:
    """Separability of n feature vectors in k groups."""

    probe: Estimate
    """Share that a linear classifier puts into the right group, of images that no fold of its training had seen."""
    chance: float
    """Accuracy of always predicting the most frequent group."""
    silhouette: Estimate
    """Mean over images, -1 to 1: how much nearer the own group is than the next one (Rousseeuw 1987)."""
    scores: np.ndarray | None
    """float64 (n,): the probe's scores of the second group, where there are two; for an AUROC."""


def separability(
    features: Tensor | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    clusters: Sequence[object] | np.ndarray,
    seed: int = 0,
) -> Separability:
    """features: (n, d), standardised on each fold's training side. labels: (n,), the group of each. clusters: (n,), who
    belongs together (a patient, or an image and its adversarial copy): never on both sides of a fold, and the intervals
    count them as one. InputError for fewer than two groups or fewer than 2 folds' worth of clusters in one.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import silhouette_samples
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows = np.asarray(features, dtype=np.float64)
    groups, owners = np.asarray(labels), np.asarray([str(t) for t in clusters])
    names, counts = np.unique(groups, return_counts=True)
    if len(names) < 2:
        raise InputError("separability needs at least two groups of images")
    smallest = min(len(np.unique(owners[groups == g])) for g in names)
    folds = min(FOLDS, smallest)
    if folds < 2:
        raise InputError("the smallest group has images of one patient only; give more")
    right, scores = np.zeros(len(rows), dtype=bool), np.zeros(len(rows))
    for train, test in StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(rows, groups, owners):
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(rows[train], groups[train])
        right[test] = probe.predict(rows[test]) == groups[test]
        if len(names) == 2:
            scores[test] = probe.decision_function(rows[test])
    spread = rows.std(0)
    near = silhouette_samples((rows - rows.mean(0)) / np.where(spread > 0, spread, 1.0), groups)
    # one number a patient: an image and its adversarial copy are not independent
    by_owner = [near[owners == o].mean() for o in np.unique(owners)]
    mean = stats.mean(by_owner)
    return Separability(
        stats.proportion(right, owners),
        float(counts.max() / counts.sum()),
        Estimate(mean.value, mean.low, mean.high, len(rows)),
        scores if len(names) == 2 else None,
    )
