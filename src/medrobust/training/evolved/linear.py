"""The baselines that need no search: logistic regression, with all features or an L1 penalty (scikit-learn)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np

from medrobust.training.evolved.problem import Side

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

STRENGTHS = tuple(10.0 ** (e / 2) for e in range(-6, 3))
"""scikit-learn's C of the L1 penalty, from keeping next to nothing to keeping nearly all; the inner folds choose."""


def logistic(side: Side, decay: float) -> LogisticRegression:
    """Logistic regression on the objective of the networks: balanced cross-entropy + decay * squared weights."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / (2 * len(side.x) * decay), max_iter=2000)
    return model.fit(side.x, side.labels, sample_weight=side.share * len(side.x))


def scores(model: LogisticRegression, x: np.ndarray) -> np.ndarray:
    """float64 (n, k): logits; with two classes the first is 0."""
    decision = model.decision_function(x)
    return np.stack([np.zeros_like(decision), decision], 1) if decision.ndim == 1 else np.asarray(decision)


def sparse(side: Side, inner: list[tuple[Side, Side]]) -> LogisticRegression:
    """L1: the strength with the least balanced cross-entropy in the inner folds, fitted again on all training images.

    inner: (fitted, held) sides; a fold's features are scaled and reduced by the fold itself.
    """
    losses = [float(np.mean([_loss(_sparse(a, strength), b) for a, b in inner])) for strength in STRENGTHS]
    return _sparse(side, STRENGTHS[int(np.argmin(losses))])


def _sparse(side: Side, strength: float) -> LogisticRegression:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, l1_ratio=1.0, solver="saga", max_iter=300, tol=1e-3, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # weak penalties are slow, and rarely chosen
        return model.fit(side.x, side.labels, sample_weight=side.share * len(side.x))


def _loss(model: LogisticRegression, side: Side) -> float:
    chance = model.predict_proba(side.x)[np.arange(len(side.x)), side.labels]
    return float(-(side.share * np.log(np.maximum(chance, 1e-12))).sum())
