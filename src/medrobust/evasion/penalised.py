"""Fool the classifier, with the detector's excess as a penalty (Carlini & Wagner 2017, arXiv:1705.07263)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.attacks import Batch, State
from medrobust.detectors import Detector
from medrobust.detectors.features import LayerFeatures
from medrobust.errors import InputError
from medrobust.evasion.evasion import Evasion
from medrobust.evasion.joint import JointOutput
from medrobust.images import Images, PerImage


class KDPenalisedCW(Evasion):
    """Ascends min(margin, kappa) - c * relu(suspicion - threshold), with a binary search for c.

    rounds: searches for c (5 as published); the steps are shared among them. After a round, c grows where the image
    fools but is seen, and falls where it does not fool. Written for kernel density, it serves every detector.
    """

    title = "Penalised CW"
    source = "Carlini & Wagner 2017, arXiv:1705.07263"
    random_start = False

    def __init__(self, steps: int = 60, step: float = 0.25, kappa: float = 0.5, rounds: int = 5) -> None:
        super().__init__(steps, step)
        if not 1 <= rounds <= steps:
            raise InputError(f"rounds must lie between 1 and steps = {steps}, got {rounds}")
        if not kappa >= 0:
            raise InputError(f"kappa must not be negative, got {kappa}")
        self.rounds, self.kappa = rounds, kappa
        self._threshold = 0.0

    def learn(self, detector: Detector, reference: LayerFeatures, classes: Tensor, threshold: float) -> None:  # noqa: ARG002
        self._threshold = threshold

    def begin(self, output: JointOutput, batch: Batch) -> State:  # noqa: ARG002
        n = output.score.shape
        low, high = output.score.new_zeros(n), output.score.new_full(n, torch.inf)
        return {"c": torch.ones_like(low), "low": low, "high": high}

    def direction(self, output: JointOutput, batch: Batch, state: State) -> Images:
        round_ended = (batch.index > 0) & (batch.index % self._length == 0)
        c, low, high = state["c"], state["low"], state["high"]
        low, high = torch.where(round_ended & output.fooled, c, low), torch.where(round_ended & ~output.fooled, c, high)
        middle = torch.where(torch.isinf(high), 10 * low, (low.clamp_min(1e-2 * high) * high).sqrt())
        state["low"], state["high"], state["c"] = low, high, torch.where(round_ended, middle, c)
        excess = (output.suspicion() - self._threshold).relu()
        return output.gradient(output.margin.clamp_max(self.kappa) - state["c"] * excess)

    def step(self, images: Images, direction: Images, batch: Batch) -> Images:
        stepped = super().step(images, direction, batch)
        again = ((batch.index > 0) & (batch.index % self._length == 0)).view(-1, 1, 1, 1)
        return torch.where(again, batch.origin, stepped)

    def progress(self, batch: Batch) -> PerImage:
        return (batch.index % self._length) / self._length

    @property
    def _length(self) -> int:
        return -(-self.steps // self.rounds)
