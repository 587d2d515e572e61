"""Hyper-parameters and the hidden size: mixed real and whole numbers, judged by networks trained in inner folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

import medrobust.training.evolved.mlp as mlp
from medrobust import seeds
from medrobust.search import Integer, Real, Space
from medrobust.training.evolved.fitted import Fitted
from medrobust.training.evolved.folds import OuterFold, inner
from medrobust.training.evolved.mlp import Layers, Shape
from medrobust.training.evolved.problem import INPUTS, Problem, Side, prepared, stacked
from medrobust.training.evolved.table import FeatureTable

STEPS = 50
"""Adam steps of every network: part of the question, the same for all methods."""
FOLDS = 2
LARGEST = 16
"""Hidden units at most."""
DEFAULTS = {"decay": 1e-3, "rate": 0.03, "hidden": 8, "inputs": INPUTS}
"""The default hyper-parameters, without a search."""
BLOCK = 2**18
"""Hidden values that are computed at once, so that they stay in a CPU's cache."""


class Hyper(Problem):
    """Weight decay, learning rate, hidden units and number of principal components of an MLP trained by Adam.

    Worth: mean balanced cross-entropy on the inner validation images after STEPS steps. One evaluation trains FOLDS
    networks; a whole population trains as one tensor, smaller networks as larger ones with units switched off. The
    starts are the same for all candidates of a task.
    """

    def __init__(self, table: FeatureTable, tasks: Sequence[OuterFold], inputs: int = INPUTS) -> None:
        super().__init__(table, tasks)
        self.prepared = [prepared(table, t.train, t.test, inputs) for t in tasks]
        pairs = [[prepared(table, a, b, inputs) for a, b in inner(table, t, FOLDS)] for t in tasks]
        self.inputs = min(
            [p.fitted.x.shape[1] for p in self.prepared] + [p.fitted.x.shape[1] for r in pairs for p in r]
        )
        self.shape = Shape(self.inputs, LARGEST, len(table.classes))
        # fold after fold of task after task: task i has rows FOLDS * i and on
        self.x, self.labels, self.share = stacked([_cut(p.fitted, self.inputs) for row in pairs for p in row])
        self.held = stacked([_cut(p.held, self.inputs) for row in pairs for p in row])
        self.starts = torch.stack([self.start(t) for t in self.tasks])
        self.space = Space(
            {
                "decay": Real(1e-5, 1e-1, log=True),
                "rate": Real(1e-3, 0.3, log=True),
                "hidden": Integer(1, LARGEST),
                "inputs": Integer(min(2, self.inputs), self.inputs),
            }
        )

    def __call__(self, decoded: Mapping[str, Tensor]) -> Tensor:
        """(S, P) of named values (S, P)."""
        s, p = decoded["decay"].shape
        step = max(1, BLOCK // (FOLDS * p * LARGEST * self.x.shape[1]))
        return torch.cat(
            [
                self._block(slice(a, a + step), {k: v[a : a + step] for k, v in decoded.items()})
                for a in range(0, s, step)
            ]
        )

    def _block(self, tasks: slice, chosen: Mapping[str, Tensor]) -> Tensor:
        """(S, P) of some tasks."""
        rows = slice(FOLDS * tasks.start, FOLDS * tasks.stop)
        folded = {k: v.repeat_interleave(FOLDS, 0) for k, v in chosen.items()}
        start = self.starts[tasks].repeat_interleave(FOLDS, 0)
        layers = self.trained(self.x[rows], self.labels[rows], self.share[rows], folded, start)
        x, labels, share = (t[rows] for t in self.held)
        loss = mlp.cross_entropy(mlp.logits(layers, x), labels, share)
        return loss.view(-1, FOLDS, loss.shape[1]).mean(1)

    def trained(self, x: Tensor, labels: Tensor, share: Tensor, chosen: Mapping[str, Tensor], start: Tensor) -> Layers:
        """Networks of chosen hyper-parameters (J, P), trained by Adam on J data sets from starts (J, D)."""
        hidden, inputs = (
            torch.arange(m) < chosen[k][..., None] for m, k in ((LARGEST, "hidden"), (self.inputs, "inputs"))
        )
        rate, decay = chosen["rate"].float()[..., None], chosen["decay"].float()
        first = start[:, None].expand(-1, rate.shape[1], -1)
        point, mean, square = first.clone(), torch.zeros_like(first), torch.zeros_like(first)
        for t in range(1, STEPS + 1):
            with torch.enable_grad():
                point.requires_grad_()
                layers = self._switched(self.shape.layers(point), hidden, inputs)
                loss = mlp.cross_entropy(mlp.logits(layers, x), labels, share) + decay * mlp.penalty(layers)
                (slope,) = torch.autograd.grad(loss.sum(), point)
            point = point.detach()
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope**2
            point = point - rate * (mean / (1 - 0.9**t)) / ((square / (1 - 0.999**t)).sqrt() + 1e-8)
        with torch.no_grad():
            return Layers(*(w.detach() for w in self._switched(self.shape.layers(point), hidden, inputs)))

    def start(self, task: OuterFold) -> Tensor:
        """float32 (D,): standard normal, so that weights have variance 1 / inputs."""
        return seeds.normal(task.seed, "first weights", [task.fold], [self.shape.size])[0]

    def settle(self, best: Tensor) -> list[Fitted]:
        return self.judged(self.space.decode(best))

    def judged(self, chosen: Mapping[str, Tensor]) -> list[Fitted]:
        """Networks with chosen (S,), trained on all training images of their task."""
        x, labels, share = stacked([_cut(p.fitted, self.inputs) for p in self.prepared])
        layers = self.trained(x, labels, share, {k: v[:, None] for k, v in chosen.items()}, self.starts)
        out = []
        for i, p in enumerate(self.prepared):
            hidden, inputs = int(chosen["hidden"][i]), int(chosen["inputs"][i])
            w1, b1, w2, b2 = (w[i, 0] for w in layers)
            own = Layers(w1[:hidden, :inputs], b1[:hidden], w2[:, :hidden], b2)
            out.append(Fitted.mlp(p.reduction.kept(np.arange(inputs)), own))
        return out

    def facts(self, best: Tensor) -> dict[str, object]:
        return {k: v.tolist() for k, v in self.space.decode(best).items()}

    @staticmethod
    def _switched(layers: Layers, hidden: Tensor, inputs: Tensor) -> Layers:
        """Units (J, P, h) and inputs (J, P, f) that are off take no part and cost nothing."""
        w1 = layers.w1 * (hidden[..., :, None] & inputs[..., None, :])
        return Layers(w1, layers.b1, layers.w2 * hidden[..., None, :], layers.b2)


def defaults(problem: Hyper) -> dict[str, Tensor]:
    """DEFAULTS as far as the images allow, each (S,)."""
    kept = {**DEFAULTS, "inputs": min(int(DEFAULTS["inputs"]), problem.inputs)}
    return {k: torch.full((len(problem.tasks),), v) for k, v in kept.items()}


def _cut(side: Side, inputs: int) -> Side:
    return Side(side.x[:, :inputs], side.labels, side.share)
