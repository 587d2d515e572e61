"""Elastic-net attack (Chen et al. 2018, arXiv:1709.04114): a small sum of changes, L1."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrobust.attacks.attack import Batch, ModelOutput, State
from medrobust.attacks.minimal import Penalty
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.threat import L1

WIDE = (-1, 1, 1, 1)


class EAD(Penalty):
    """Least L1 length + ``elastic`` x squared L2 length + c x missing margin, by shrinking steps with momentum (FISTA).

    As in CW-L2, c is searched for each image and the linear model gives its first value and the step: twice the c from
    which the steepest value moves at all. rounds: values of c tried; inner: steps in each. step: as a fraction of the
    change that the steepest value would need alone.
    """

    title = "EAD"
    source = "Chen et al. 2018, arXiv:1709.04114"
    norms = (L1,)

    def __init__(self, rounds: int = 5, inner: int = 40, step: float = 0.03, elastic: float = 0.1) -> None:
        super().__init__(rounds, inner, step)
        if elastic < 0:
            raise InputError(f"elastic must not be negative, got {elastic}")
        self.elastic = elastic

    @property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "elastic": self.elastic}

    def start(self, batch: Batch) -> tuple[Images, State]:
        return batch.origin.clone(), {
            **self.constants(batch),
            "stride": torch.zeros(len(batch.ids), device=batch.origin.device),
            "clean_gradient": torch.zeros_like(batch.origin),
            "before": batch.origin.clone(),
        }

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        assert output.gradient is not None
        self._begin(output, batch, state)
        k = batch.index % self.inner
        state["reached"] = state["reached"] | output.reached
        new = (k == 0) & (batch.index > 0)
        self.next_constant(new, state)
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
