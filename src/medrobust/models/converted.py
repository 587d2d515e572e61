"""A network that runs elsewhere, and its copy in torch that has gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medrobust.models.black_box import BlackBoxModel

AGREES = 1e-4
"""Largest difference of outputs, relative to the largest output, at which a copy stands for the network."""


class Agreement(NamedTuple):
    """difference: of outputs, the largest, relative to the largest output. decisions: that differ, of ``images``."""

    difference: float
    decisions: int
    images: int

    @property
    def holds(self) -> bool:
        """Whether the copy may stand for the network."""
        return self.difference <= AGREES and not self.decisions


class Converted(nn.Module):
    """``net`` in the place of ``original``, which runs in ``runtime`` and has no gradients."""

    def __init__(self, net: nn.Module, original: BlackBoxModel, runtime: str) -> None:
        super().__init__()
        self.net, self.runtime = net, runtime
        self._original = (original,)  # no part of the copy: its modules are not listed

    @property
    def original(self) -> BlackBoxModel:
        """The network that decides."""
        return self._original[0]

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images)
        return out

    @torch.no_grad()
    def agreement(self, inputs: Tensor, decide: Callable[[Tensor], Tensor]) -> Agreement:
        """Of both on normalised images (n, c, h, w). decide: raw outputs to decisions (n,), or (n, k) of findings."""
        wanted, got = self.original(inputs).float(), self(inputs).float()
        if wanted.shape != got.shape:
            return Agreement(torch.inf, len(inputs), len(inputs))
        scale = wanted.abs().max().clamp_min(1e-12)
        return Agreement(
            float((got - wanted).abs().nan_to_num(torch.inf).max() / scale),
            int((decide(got) != decide(wanted)).sum()),
            len(inputs),
        )
