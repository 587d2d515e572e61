"""Which features to keep: binary masks, judged by a linear classifier in inner folds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrobust.search import Binary, Space
from medrobust.training.evolved.fitted import Fitted
from medrobust.training.evolved.folds import OuterFold, inner
from medrobust.training.evolved.linear import logistic
from medrobust.training.evolved.problem import DECAY, INNER, Problem, Side, prepared
from medrobust.training.evolved.table import FeatureTable

INPUTS = 64
"""Features offered: more are reduced to as many principal components first."""
PRICE = 0.01
"""The penalty for keeping all features, beside the squared error, which is 1 for a constant prediction."""


class Masks(Problem):
    """A wrapper: for each mask a least-squares classifier is fitted in every inner fold, and judged on the others.

    Worth: mean balanced squared error on inner validation images (targets -1 and 1) + PRICE * share of features kept.
    Least squares makes it exact and cheap: what a mask needs of the images are sums of products, computed once. What
    is judged at the end is a logistic regression on the kept features.
    """

    def __init__(
        self, table: FeatureTable, tasks: Sequence[OuterFold], inputs: int = INPUTS, decay: float = DECAY
    ) -> None:
        super().__init__(table, tasks)
        self.inputs, self.decay, k = inputs, decay, len(table.classes)
        self.prepared = [prepared(table, t.train, t.test, inputs) for t in tasks]
        folds = [
            [prepared(table, a, b, inputs) for a, b in inner(table, t, INNER)] for t in tasks
        ]  # the components of an inner fold are its own: a mask names ranks, not vectors
        self.features = min(p.fitted.x.shape[1] for p in self.prepared)
        self.features = min(self.features, *(p.fitted.x.shape[1] for row in folds for p in row))
        self.fit = [_stack([_sums(p.fitted, self.features, k) for p in row]) for row in folds]
        self.held = [_stack([_sums(p.held, self.features, k) for p in row]) for row in folds]
        self.space = Space({"mask": Binary(self.features)})

    def __call__(self, decoded: Any) -> Tensor:
        """(S, P) of masks bool (S, P, f)."""
        mask: Tensor = decoded["mask"]
        errors = torch.stack([self._task(i, mask[i].double()) for i in range(len(mask))])
        return errors + PRICE * mask.double().mean(2)

    def _task(self, i: int, mask: Tensor) -> Tensor:
        """(P,): mean validation error over the inner folds."""
        (gram, cross, _), (gram_held, cross_held, square) = self.fit[i], self.held[i]
        keep = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)[:, None]  # the last column is the constant
        inside = gram * keep[..., None] * keep[..., None, :]
        # a feature that is left out has no products, and the decay gives it weight 0
        inside = inside + self.decay * torch.eye(inside.shape[-1], dtype=inside.dtype)
        weights = torch.linalg.solve(inside, cross * keep[..., None])
        error: Tensor = (
            square - 2 * (weights * cross_held).sum((-2, -1)) + (weights * (gram_held @ weights)).sum((-2, -1))
        )
        return error.mean(1)

    def masks(self, best: Tensor) -> np.ndarray:
        """bool (S, f); a mask that keeps nothing keeps the first feature."""
        mask: np.ndarray = self.space.decode(best)["mask"].numpy().copy()
        mask[~mask.any(1), 0] = True
        return mask

    def settle(self, best: Tensor) -> list[Fitted]:
        return self.judged(self.masks(best))

    def judged(self, masks: np.ndarray) -> list[Fitted]:
        """A logistic regression on the kept features (S, f) of each task."""
        out = []
        for p, mask in zip(self.prepared, masks, strict=True):
            kept = np.flatnonzero(mask)
            side = Side(p.fitted.x[:, kept], p.fitted.labels, p.fitted.share)
            out.append(Fitted.linear(p.reduction.kept(kept), logistic(side, self.decay)))
        return out

    def facts(self, best: Tensor) -> dict[str, object]:
        return {"kept": self.masks(best).sum(1).tolist(), "offered": self.features}


def _sums(side: Side, features: int, classes: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Weighted sums of products: (f+1, f+1) of the features and a constant, (f+1, k) with the targets, their square."""
    x = np.concatenate([side.x[:, :features], np.ones((len(side.x), 1))], 1)
    wanted = 2.0 * (side.labels[:, None] == np.arange(classes)) - 1
    wanted = wanted[:, 1:] if classes == 2 else wanted
    weighted = x * side.share[:, None]
    return weighted.T @ x, weighted.T @ wanted, float((side.share[:, None] * wanted**2).sum())


def _stack(sums: list[tuple[np.ndarray, np.ndarray, float]]) -> tuple[Tensor, Tensor, Tensor]:
    gram, cross, square = zip(*sums, strict=True)
    return torch.from_numpy(np.stack(gram)), torch.from_numpy(np.stack(cross)), torch.tensor(square).double()
