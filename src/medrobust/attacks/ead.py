"""Elastic-net attack (Chen et al. 2018, arXiv:1709.04114): a small sum of changes, L1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrobust.attacks.attack import Attack, Batch, ModelOutput, State
from medrobust.attacks.minimal import next_constant
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.threat import L1, margin

WIDE = (-1, 1, 1, 1)


class EAD(Attack):
    """Least L1 length + ``elastic`` x squared L2 length + c x missing margin, by shrinking steps with momentum (FISTA).

    As in CW-L2, c is searched for each image and the linear model gives its first value and the step: twice the c from
    which the steepest value moves at all. rounds: values of c tried; inner: steps in each. step: as a fraction of the
    change that the steepest value would need alone.
    """

    title = "EAD"
    source = "Chen et al. 2018, arXiv:1709.04114"
    minimal = True
    norms = (L1,)
    loss = staticmethod(margin)

    def __init__(self, rounds: int = 5, inner: int = 40, step: float = 0.03, elastic: float = 0.1) -> None:
        if rounds < 1 or inner < 2:
            raise InputError(f"rounds must be at least 1 and inner at least 2, got {rounds} and {inner}")
        if not (step > 0 and elastic >= 0):
            raise InputError(f"step must be positive and elastic not negative, got {step} and {elastic}")
        self.rounds, self.inner, self.step_size, self.elastic = rounds, inner, step, elastic
        self.steps = rounds * inner

    @property
    def settings(self) -> dict[str, object]:
        return {"rounds": self.rounds, "inner": self.inner, "step": self.step_size, "elastic": self.elastic}

    def start(self, batch: Batch) -> tuple[Images, State]:
        n, device = len(batch.ids), batch.origin.device
        number = torch.zeros(n, device=device)
        return batch.origin.clone(), {
            "c": number.clone(),
            "failed": number.clone(),
            "worked": torch.full((n,), torch.inf, device=device),
            "reached": torch.zeros(n, dtype=torch.bool, device=device),
            "stride": number.clone(),
            "clean_gradient": torch.zeros_like(batch.origin),
            "before": batch.origin.clone(),
        }

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        assert output.gradient is not None
        self._begin(output, batch, state)
        k = batch.index % self.inner
        state["reached"] = state["reached"] | output.reached
        new = (k == 0) & (batch.index > 0)
        next_constant(new, state)
        state["reached"] = state["reached"] & ~new
        from_origin = (k == 0).view(WIDE)
        images = torch.where(from_origin, batch.origin, images)
        gradient = torch.where(from_origin, state["clean_gradient"], output.gradient)
        before = torch.where(from_origin, batch.origin, state["before"])
        active = ~output.reached | (k == 0)

        slope = 2 * self.elastic * (images - batch.origin) - (state["c"] * active).view(WIDE) * gradient
        stride = (state["stride"] * ((1 + torch.cos(math.pi * k / self.inner)) / 2 * 0.99 + 0.01)).view(WIDE)
        moved = images - stride * slope - batch.origin
        after = (batch.origin + moved - moved.minimum(stride).maximum(-stride)).clamp(0, 1)
        state["before"] = after
        ahead: Images = after + (k / (k + 3)).view(WIDE) * (after - before)
        return ahead.clamp(0, 1)

    def _begin(self, output: ModelOutput, batch: Batch, state: State) -> None:
        """Constants and steps from the linear model at the image itself."""
        assert output.gradient is not None
        first = batch.index == 0
        steepest: Tensor = output.gradient.flatten(1).abs().amax(1).clamp_min(1e-30)
        alone = ((-output.margin).clamp_min(0) / steepest).clamp_max(1)
        state["c"] = torch.where(first, 2 / steepest, state["c"])
        state["stride"] = torch.where(first, self.step_size * alone, state["stride"])
        state["clean_gradient"] = torch.where(first.view(WIDE), output.gradient, state["clean_gradient"])
