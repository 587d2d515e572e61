"""The decision threshold: how far each class's logit is moved before the largest decides."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

import medrobust.training.evolved.linear as linear
from medrobust.search import Box
from medrobust.training.evolved.fitted import Fitted
from medrobust.training.evolved.folds import OuterFold, inner
from medrobust.training.evolved.problem import DECAY, INNER, INPUTS, Problem, prepared
from medrobust.training.evolved.table import FeatureTable

REACH = 4.0
"""Logits are moved by this much at most: for two classes, thresholds from 0.018 to 0.982."""
SWEEPS = 3
"""Turns of the scan over the classes, where there are more than two."""


class Thresholds(Problem):
    """One shift for each class but the first, of a logistic regression's logits; k = 2 is one threshold.

    Worth: 1 - balanced accuracy on the training images, each scored by the inner fold that has not seen it.
    """

    def __init__(
        self, table: FeatureTable, tasks: Sequence[OuterFold], inputs: int = INPUTS, decay: float = DECAY
    ) -> None:
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
            shifted = bias + (shift if len(bias) == 1 else np.concatenate([[0.0], shift]))
            out.append(Fitted(model.reduction, [(weight, shifted)]))
        return out

    def scanned(self) -> Tensor:
        """float64 (S, k - 1): each class's shift in turn set to the best of all that decide differently, nearest 0.

        The exact optimum for two classes, where one turn is enough; SWEEPS turns for more.
        """
        k = len(self.table.classes)
        return torch.stack([self._scanned(i, k, 1 if k == 2 else SWEEPS) for i in range(len(self.tasks))])

    def _scanned(self, i: int, k: int, sweeps: int) -> Tensor:
        scores, shift = self.scores[i], torch.zeros(k - 1, dtype=torch.float64)
        for c in [*range(1, k)] * sweeps:
            shifted = self._moved(scores, shift[None])[0]
            others = shifted[:, [j for j in range(k) if j != c]].max(1).values
            turns = (others - scores[:, c]).sort().values  # a larger shift decides for c
            tried = torch.cat([turns.new_zeros(1), (turns[1:] + turns[:-1]) / 2]).clamp(-REACH, REACH)
            tried = tried[tried.abs().sort(stable=True).indices]
            points = shift.repeat(len(tried), 1)
            points[:, c - 1] = tried
            shift = points[self.value(i, points).argmin()]
        return shift

    def facts(self, best: Tensor) -> dict[str, object]:
        return {"shift": best.tolist()}

    @staticmethod
    def _moved(scores: Tensor, shift: Tensor) -> Tensor:
        """(P, n, k) of scores (n, k) and shifts (P, k - 1)."""
        return scores + torch.cat([shift.new_zeros(len(shift), 1), shift], 1)[:, None]
