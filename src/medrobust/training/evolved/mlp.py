"""A small multilayer perceptron, evaluated for whole populations of weights, seeds and folds as one tensor.

One hidden layer of tanh units. A candidate is one row of numbers; S x P x D of them on S data sets take four matrix
products in all, not S x P of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Layers(NamedTuple):
    """The weights of a network as torch.nn.Linear has them: (…, h, f), (…, h), (…, k, h), (…, k)."""

    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor


@dataclass(frozen=True)
class Shape:
    """inputs f, hidden h, classes; two classes share one logit.

    A candidate (D,) holds the layers one after another. Weights are divided by the root of the number of inputs of
    their layer, so that one box suits both layers.
    """

    inputs: int
    hidden: int
    classes: int

    @property
    def outputs(self) -> int:
        return 1 if self.classes == 2 else self.classes

    @property
    def size(self) -> int:
        """D: how many numbers a network has."""
        return self.hidden * (self.inputs + 1) + self.outputs * (self.hidden + 1)

    def layers(self, candidate: Tensor) -> Layers:
        """(…, D) taken apart and scaled."""
        f, h, k = self.inputs, self.hidden, self.outputs
        w1, b1, w2, b2 = candidate.split([h * f, h, k * h, k], -1)
        w1, w2 = (w.reshape(*w.shape[:-1], *shape) for w, shape in ((w1, (h, f)), (w2, (k, h))))
        return Layers(w1 / f**0.5, b1, w2 / h**0.5, b2)


def logits(layers: Layers, x: Tensor) -> Tensor:
    """(S, P, k, N) of P networks on each of S data sets x (S, N, f)."""
    s, p, h, f = layers.w1.shape
    k = layers.w2.shape[2]
    first = torch.baddbmm(layers.b1.reshape(s, p * h, 1), layers.w1.reshape(s, p * h, f), x.transpose(1, 2))
    hidden = first.tanh_().view(s * p, h, -1)
    out = torch.baddbmm(layers.b2.reshape(s * p, k, 1), layers.w2.reshape(s * p, k, h), hidden)
    return out.view(s, p, k, -1)


def cross_entropy(logits: Tensor, labels: Tensor, share: Tensor) -> Tensor:
    """(S, P): the cross-entropy of logits (S, P, k, N) for labels (S, N), weighted by share (S, N)."""
    s, p, k, n = logits.shape
    if k == 1:
        signed = logits[:, :, 0] * (1 - 2 * labels[:, None])  # log(1 + exp(-z)) for class 1, of +z for class 0
        each = -F.logsigmoid(-signed)
    else:
        wanted = labels[:, None, None].expand(s, p, 1, n)
        each = logits.logsumexp(2) - logits.gather(2, wanted)[:, :, 0]
    return torch.matmul(each, share[:, :, None])[..., 0]


def penalty(layers: Layers) -> Tensor:
    """(S, P): the sum of squared weights; biases are free."""
    return layers.w1.square().sum((-2, -1)) + layers.w2.square().sum((-2, -1))
