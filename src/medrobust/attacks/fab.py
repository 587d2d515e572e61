"""Fast adaptive boundary attack (Croce & Hein 2020, arXiv:1907.02044), Linf, L2 and L1."""

from __future__ import annotations

import torch

from medrobust.attacks.attack import Attack, Batch, ModelOutput, State
from medrobust.errors import InputError
from medrobust.images import Images, PerImage
from medrobust.threat import L1, L2, Ball, Linf, margin

WIDE = (-1, 1, 1, 1)


class FAB(Attack):
    """Steps between two projections on the linearised boundary: of the current image, and of the clean one.

    Both respect [0, 1]. towards: the largest share of the clean image's projection in a step; overshoot: how far beyond
    the boundary, as a share of a projection's length; back: what is left of a change that succeeded, before it is
    projected again.
    """

    title = "FAB"
    source = "Croce & Hein 2020, arXiv:1907.02044"
    minimal = True
    norms = (Linf, L2, L1)
    loss = staticmethod(margin)

    def __init__(self, steps: int = 100, towards: float = 0.1, overshoot: float = 0.05, back: float = 0.9) -> None:
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        if not (0 < towards <= 1 and overshoot >= 0 and 0 < back < 1):
            raise InputError("FAB needs 0 < towards <= 1, overshoot >= 0 and 0 < back < 1")
        self.steps, self.towards, self.overshoot, self.back = steps, towards, overshoot, back

    def start(self, batch: Batch) -> tuple[Images, State]:
        return batch.origin.clone(), {}

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:  # noqa: ARG002
        assert output.gradient is not None
        gradient, ball, origin = output.gradient, batch.ball, batch.origin
        margin_at_origin = output.margin + (gradient * (origin - images)).flatten(1).sum(1)
        here = _onto_boundary(ball, images, gradient, output.margin)
        there = _onto_boundary(ball, origin, gradient, margin_at_origin)
        short, long = ball.size(here), ball.size(there)
        share = (short / (short + long).clamp_min(1e-12)).clamp_max(self.towards).view(WIDE)
        beyond = 1 + self.overshoot
        projected = (1 - share) * (images + beyond * here) + share * (origin + beyond * there)
        shorter = origin + self.back * (images - origin)
        return torch.where(output.reached.view(WIDE), shorter, projected).clamp(0, 1)


def _onto_boundary(ball: Ball, images: Images, gradient: Images, margin: PerImage) -> Images:
    """The smallest change to margin 0 of the linear model, within [0, 1]."""
    uphill = torch.where((margin <= 0).view(WIDE), gradient, -gradient)
    room = torch.where(uphill > 0, 1 - images, images)
    return ball.nearest(uphill, margin.abs(), room)
