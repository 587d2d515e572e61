"""Square attack: random squares, kept when the loss rises; no gradient (Andriushchenko et al. 2020)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.attack import Attack, Rows, Seen, State
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.threat import Linf, margin


class Square(Attack):
    """Black box, Linf (Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 and 2).

    steps: queries an image. share: first square's share of the image's area; it falls as in the paper.
    A row's random squares are drawn when it starts, keyed by its id, so they do not depend on the batch.
    """

    title = "Square"
    source = "Andriushchenko et al. 2020, arXiv:1912.00049"
    uses_gradient = False
    random_start = True
    loss = staticmethod(margin)

    def __init__(self, steps: int = 500, share: float = 0.8) -> None:
        if steps < 1 or not 0 < share <= 1:
            raise InputError(f"steps must be at least 1 and share in (0, 1], got {steps} and {share}")
        self.steps, self.share = steps, share

    def start(self, rows: Rows) -> tuple[Images, State]:
        if not isinstance(rows.ball, Linf):
            raise InputError("Square is written for Linf balls so far; use a gradient attack for L2")
        n, c, _, w = rows.origin.shape
        device = rows.origin.device
        # vertical stripes of +-eps, the paper's start
        stripes = seeds.signs(rows.seed, "square/stripes", rows.keys(), (c, 1, w)).to(device)
        # uniform numbers for place and signs of every square: (steps, 2 + c)
        plan = seeds.uniform(rows.seed, "square/plan", rows.keys(), (self.steps, 2 + c)).to(device)
        begin = (rows.origin + rows.ball.eps * stripes).clamp(0, 1)
        return begin, {"plan": plan, "best": begin.clone(), "loss": torch.full((n,), -torch.inf, device=device)}

    def step(self, images: Images, seen: Seen, rows: Rows, state: State) -> Images:
        better = seen.loss > state["loss"]
        state["loss"] = torch.where(better, seen.loss, state["loss"])
        state["best"] = torch.where(better.view(-1, 1, 1, 1), images, state["best"])
        n, c, h, w = images.shape
        draw = state["plan"].gather(1, rows.index.view(-1, 1, 1).expand(-1, 1, 2 + c))[:, 0]
        side = self._side(rows.index, h, w)
        place = (draw[:, :2] + 1) / 2
        top = (place[:, 0] * (h - side + 1)).long().clamp(max=h - 1)
        left = (place[:, 1] * (w - side + 1)).long().clamp(max=w - 1)
        y, x = torch.arange(h, device=images.device), torch.arange(w, device=images.device)
        tall = (y >= top[:, None]) & (y < (top + side)[:, None])
        wide = (x >= left[:, None]) & (x < (left + side)[:, None])
        inside = tall[:, None, :, None] & wide[:, None, None, :]
        sign = torch.where(draw[:, 2:] >= 0, 1.0, -1.0).view(n, c, 1, 1)
        painted = rows.origin + rows.ball.eps * sign
        return torch.where(inside, painted, state["best"]).clamp(0, 1)

    def _side(self, index: Tensor, h: int, w: int) -> Tensor:
        """The paper halves the area at 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000 of 10,000 queries."""
        progress = index.float() / self.steps * 10_000
        marks = torch.tensor([10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000], device=index.device)
        halvings = (progress[:, None] > marks).sum(1)
        area = self.share * 0.5 ** halvings.float()
        return (area.sqrt() * math.sqrt(h * w)).round().long().clamp(1, min(h, w))
