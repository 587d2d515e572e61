"""The core of the review: an optimiser sets all weights of a small network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import medrobust.training.evolved.mlp as mlp
from medrobust.search import Box
from medrobust.training.evolved.fitted import Fitted
from medrobust.training.evolved.folds import OuterFold
from medrobust.training.evolved.mlp import Shape
from medrobust.training.evolved.problem import DECAY, INPUTS, Problem, prepared, stacked
from medrobust.training.evolved.table import FeatureTable

BOUND = 3.0
"""Half the side of the box, before the weights are divided by the root of their layer's inputs."""
HIDDEN = 8
CACHE = 2**17
"""Hidden values of a block of tasks on the CPU: more would leave the cache and take three times as long."""


class Weights(Problem):
    """The weights of an MLP: balanced cross-entropy of the training images plus DECAY times the squared weights."""

    differentiable = True

    def __init__(
        self,
        table: FeatureTable,
        tasks: Sequence[OuterFold],
        inputs: int = INPUTS,
        hidden: int = HIDDEN,
        decay: float = DECAY,
    ) -> None:
        super().__init__(table, tasks)
        self.decay = decay
        self.prepared = [prepared(table, t.train, t.test, inputs) for t in tasks]
        self.x, self.labels, self.share = stacked([p.fitted for p in self.prepared])
        self.shape = Shape(self.x.shape[2], hidden, len(table.classes))
        self.space = Box(-BOUND, BOUND, dims=self.shape.size)

    def __call__(self, decoded: Tensor) -> Tensor:
        """(S, P) of candidates (S, P, D)."""
        s, p, _ = decoded.shape
        step = max(1, min(s, CACHE // max(1, p * self.shape.hidden * self.x.shape[1])))
        blocks = [
            self._block(decoded[i : i + step], *(t[i : i + step] for t in (self.x, self.labels, self.share)))
            for i in range(0, s, step)
        ]
        return torch.cat(blocks)

    def _block(self, candidates: Tensor, x: Tensor, labels: Tensor, share: Tensor) -> Tensor:
        layers = self.shape.layers(candidates)
        return mlp.cross_entropy(mlp.logits(layers, x), labels, share) + self.decay * mlp.penalty(layers)

    def settle(self, best: Tensor) -> list[Fitted]:
        return [Fitted.mlp(p.reduction, self.shape.layers(b)) for p, b in zip(self.prepared, best, strict=True)]
