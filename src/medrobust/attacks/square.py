"""Square attack: random squares, kept when the loss rises; no gradient (Andriushchenko et al. 2020)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.attack import Batch, ModelOutput, State
from medrobust.attacks.blackbox import BlackBox
from medrobust.attacks.windows import blotch, inside, tiled
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.threat import Linf

PLAN = 6
"""Uniform numbers a query needs beside the signs: two places of two coordinates, and which way the pattern lies."""


class Square(BlackBox):
    """Black box, Linf and L2 (Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 to 3).

    queries: an image may cost so many; ``steps`` is an older name of it. share: first square's share of the image's
    area; it falls as in the paper. A row's random squares are drawn when it starts, keyed by its id, so they do not
    depend on the batch.
    """

    title = "Square"
    source = "Andriushchenko et al. 2020, arXiv:1912.00049"
    random_start = True

    def __init__(self, queries: int = 500, share: float = 0.8, *, steps: int = 0) -> None:
        super().__init__(steps or queries)
        if not 0 < share <= 1:
            raise InputError(f"share must lie in (0, 1], got {share}")
        self.share = share

    def start(self, batch: Batch) -> tuple[Images, State]:
        n, c, h, w = batch.origin.shape
        device = batch.origin.device
        plan = seeds.uniform(batch.seed, "square/plan", batch.keys(), (self.steps, PLAN + c)).to(device)
        state = {"plan": plan, "best": batch.origin.clone(), "loss": torch.full((n,), -torch.inf, device=device)}
        if isinstance(batch.ball, Linf):
            # vertical stripes of +-eps, the paper's start
            stripes = seeds.signs(batch.seed, "square/stripes", batch.keys(), (c, 1, w)).to(device)
            return (batch.origin + batch.ball.eps * stripes).clamp(0, 1), state
        side = max(min(h, w) // 5, 1)
        signs = seeds.signs(batch.seed, "square/tiles", batch.keys(), (c, h // side, w // side)).to(device)
        turned = seeds.uniform(batch.seed, "square/turned", batch.keys(), (1,)).to(device)[:, 0] > 0
        whole = batch.ball.at_edge(tiled(signs, side, turned, (h, w)))
        return batch.ball.move(batch.origin, batch.origin + batch.ball.eps * whole), state

    def step(self, images: Images, output: ModelOutput, batch: Batch, state: State) -> Images:
        better = output.loss > state["loss"]
        state["loss"] = torch.where(better, output.loss, state["loss"])
        state["best"] = torch.where(better.view(-1, 1, 1, 1), images, state["best"])
        width = state["plan"].shape[2]
        draw = state["plan"].gather(1, batch.index.view(-1, 1, 1).expand(-1, 1, width))[:, 0]
        if isinstance(batch.ball, Linf):
            return self._painted(draw, batch, state["best"])
        return self._moved(draw, batch, state["best"])

    def _painted(self, draw: Tensor, batch: Batch, best: Images) -> Images:
        """Linf: one square, in each channel +eps or -eps."""
        n, c, h, w = best.shape
        here = inside(self._side(batch.index, h, w), (draw[:, :2] + 1) / 2, (h, w))[:, None]
        sign = torch.where(draw[:, PLAN:] >= 0, 1.0, -1.0).view(n, c, 1, 1)
        return torch.where(here, batch.origin + batch.ball.eps * sign, best).clamp(0, 1)

    def _moved(self, draw: Tensor, batch: Batch, best: Images) -> Images:
        """L2: the length of one window moves into another, in the shape of two blotches of opposite sign."""
        n, c, h, w = best.shape
        side = self._side(batch.index, h, w).clamp(min=3)
        side = (side + 1 - side % 2).clamp(max=min(h, w))  # odd, as published
        place = (draw[:, :4] + 1) / 2
        to, off = inside(side, place[:, :2], (h, w))[:, None], inside(side, place[:, 2:], (h, w))[:, None]
        delta = best - batch.origin

        def length(part: Tensor) -> Tensor:
            return part.square().sum((2, 3), keepdim=True)

        left = (batch.ball.eps**2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp(min=0)
        available = (left / c + length(delta * (to | off))).sqrt()
        sign = torch.where(draw[:, PLAN:] >= 0, 1.0, -1.0).view(n, c, 1, 1)
        old = delta * to
        new = sign * blotch(side, place[:, :2], draw[:, 4] > 0, (h, w)) + old / length(old).sqrt().clamp(min=1e-10)
        new = new / length(new).sqrt().clamp(min=1e-10) * available
        delta = torch.where(to, new, torch.where(off, 0.0, delta))
        return batch.ball.move(batch.origin, batch.origin + batch.ball.eps * batch.ball.at_edge(delta))

    def _side(self, index: Tensor, h: int, w: int) -> Tensor:
        return sides(self.steps, self.share, h, w).to(index.device)[index]


@lru_cache(maxsize=16)
def sides(queries: int, share: float, h: int, w: int) -> Tensor:
    """int64 (queries,): the square's side in pixels at each query.

    The paper halves the area at 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10,000 queries.
    """
    progress = torch.arange(queries).float() / queries * 10_000
    halvings = (progress[:, None] > torch.tensor([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000])).sum(1)
    area = share * 0.5 ** halvings.float()
    return (area.sqrt() * math.sqrt(h * w)).round().long().clamp(1, min(h, w))
