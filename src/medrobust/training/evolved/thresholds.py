"""The decision threshold: how far each class's logit is moved before the largest decides."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medrobust.search import Box
from medrobust.training.evolved import linear
from medrobust.training.evolved.fitted import Fitted
from medrobust.training.evolved.folds import Task, inner
from medrobust.training.evolved.problem import DECAY, INNER, INPUTS, Problem, prepared
from medrobust.training.evolved.table import Table

REACH = 4.0
"""Logits are moved by this much at most: for two classes, thresholds from 0.018 to 0.982."""


class Thresholds(Problem):
    """One shift for each class but the first, of a logistic regression's logits; k = 2 is one threshold.

    Worth: 1 - balanced accuracy on the training images, each scored by the inner fold that has not seen it.
    """

    def __init__(self, table: Table, tasks: Sequence[Task], inputs: int = INPUTS, decay: float = DECAY) -> None:
        super().__init__(table, tasks)
        k = len(table.classes)
        self.space = Box(-REACH, REACH, dims=k - 1, dtype=torch.float64)
        self.scores, self.labels, self.models = [], [], []
        for task in tasks:
            scores = np.empty((len(table), k))
            for a, b in inner(table, task, INNER):
                fold = prepared(table, a, b, inputs)
                scores[b] = linear.scores(linear.logistic(fold.fitted, decay), fold.held.x)
            whole = prepared(table, task.train, task.test, inputs)
            self.scores.append(torch.from_numpy(scores[task.train]))
            self.labels.append(torch.from_numpy(table.labels[task.train]))
            self.models.append(Fitted.linear(whole.reduction, linear.logistic(whole.fitted, decay)))

    def __call__(self, decoded: Tensor) -> Tensor:
        """(S, P) of shifts (S, P, k - 1)."""
        return torch.stack([self.value(i, shift) for i, shift in enumerate(decoded)])

    def value(self, i: int, shift: Tensor) -> Tensor:
        """(P,) for one task."""
        labels = self.labels[i]
        right = self._moved(self.scores[i], shift).argmax(-1) == labels
        recalls = [right[:, labels == c].double().mean(1) for c in range(len(self.table.classes))]
        return 1 - torch.stack(recalls).mean(0)

    def settle(self, best: Tensor) -> list[Fitted]:
        out = []
        for model, shift in zip(self.models, best.numpy(), strict=True):
            ((weight, bias),) = model.layers
            moved = bias + (shift if len(bias) == 1 else np.concatenate([[0.0], shift]))
            out.append(Fitted(model.reduction, [(weight, moved)]))
        return out

    def scanned(self) -> Tensor:
        """float64 (S, 1): the best threshold by looking at all that differ (two classes); ties: the one nearest 0."""
        out = []
        for scores, labels in zip(self.scores, self.labels, strict=True):
            odds = (scores[:, 0] - scores[:, 1]).sort().values  # a shift above it turns the decision
            between = (odds[1:] + odds[:-1]) / 2
            tried = torch.cat([odds.new_zeros(1), between]).clamp(-REACH, REACH)
            tried = tried[tried.abs().sort(stable=True).indices]
            recalls = []
            for c in (0, 1):
                right = (tried[:, None] > (scores[:, 0] - scores[:, 1])[labels == c]) == bool(c)
                recalls.append(right.double().mean(1))
            out.append(tried[(1 - torch.stack(recalls).mean(0)).argmin()])
        return torch.stack(out)[:, None]

    def facts(self, best: Tensor) -> dict[str, Any]:
        return {"shift": best.tolist()}

    @staticmethod
    def _moved(scores: Tensor, shift: Tensor) -> Tensor:
        """(P, n, k) of scores (n, k) and shifts (P, k - 1)."""
        return scores + torch.cat([shift.new_zeros(len(shift), 1), shift], 1)[:, None]
