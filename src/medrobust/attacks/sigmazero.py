"""Sigma-zero (Cina et al. 2024, arXiv:2402.01879): few changed values, L0."""

from __future__ import annotations

import math

import torch

from medrobust.attacks.attack import Attack, Batch, ModelOutput, State
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.threat import L0, margin

WIDE = (-1, 1, 1, 1)


class SigmaZero(Attack):
    """Adam on the missing margin and a smooth count of the changed values; changes below a threshold are taken back.

    The threshold rises while the image is fooled and falls while it is not. step: Adam's first step; smooth: the square
    of the change that counts half; threshold: the first; rate: its change, as a share of the step.
    """

    title = "sigma-zero"
    source = "Cina et al. 2024, arXiv:2402.01879"
    minimal = True
    norms = (L0,)
    loss = staticmethod(margin)

    def __init__(
        self, steps: int = 100, step: float = 1.0, smooth: float = 1e-3, threshold: float = 0.3, rate: float = 0.01
    ) -> None:
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        if not (step > 0 and smooth > 0 and 0 < threshold < 1 and rate > 0):
            raise InputError("sigma-zero needs step, smooth and rate above 0 and a threshold between 0 and 1")
        self.steps, self.step_size, self.smooth, self.threshold, self.rate = steps, step, smooth, threshold, rate

    @property
    def settings(self) -> dict[str, object]:
        own = ("steps", "smooth", "threshold", "rate")
        return {"step": self.step_size, **{name: getattr(self, name) for name in own}}

    def start(self, batch: Batch) -> tuple[Images, State]:
        return batch.origin.clone(), {
            "threshold": torch.full((len(batch.ids),), self.threshold, device=batch.origin.device),
            "first": torch.zeros_like(batch.origin),
            "second": torch.zeros_like(batch.origin),
        }

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        assert output.gradient is not None
        delta = images - batch.origin
        count = 2 * delta * self.smooth / (delta.square() + self.smooth).square() / delta[0].numel()
        slope = count - (~output.reached).view(WIDE) * output.gradient
        slope = slope / slope.flatten(1).abs().amax(1).clamp_min(1e-12).view(WIDE)
        state["first"] = 0.9 * state["first"] + 0.1 * slope
        state["second"] = 0.999 * state["second"] + 0.001 * slope.square()
        turn = (batch.index + 1).view(WIDE)
        first, second = state["first"] / (1 - 0.9**turn), state["second"] / (1 - 0.999**turn)
        stride = self.step_size * (1 + torch.cos(math.pi * batch.index / self.steps)) / 2
        moved = (images - stride.view(WIDE) * first / (second.sqrt() + 1e-8)).clamp(0, 1)
        change = torch.where(output.reached, self.rate, -self.rate) * stride
        state["threshold"] = (state["threshold"] + change).clamp(0, 1)
        small = (moved - batch.origin).abs() < state["threshold"].view(WIDE)
        return torch.where(small, batch.origin, moved)
