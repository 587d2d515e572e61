"""The one-pixel attack: differential evolution over a few places and their values (Su et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.attacks.attack import Batch
from medrobust.attacks.population import Population
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.search import DE, Box
from medrobust.threat import Ball, cross_entropy


class OnePixel(Population):
    """Changes at most ``pixels`` pixels, to any value that the ball allows; under Linf(1), as published, to any at all.

    A candidate names for each pixel its row, its column and a value a channel, as DE/rand/1 with F = 0.5 searches it.
    population: the paper's 400 are more than the budgets of a hosted model.
    """

    title = "One pixel"
    source = "Su et al. 2019, arXiv:1710.08864"
    loss = staticmethod(cross_entropy)

    def __init__(self, queries: int = 500, pixels: int = 1, population: int = 40) -> None:
        super().__init__(queries)
        if pixels < 1:
            raise InputError(f"pixels must be at least 1, got {pixels}")
        self.pixels, self.population = pixels, population
        self.optimiser = DE(population)

    @property
    def settings(self) -> dict[str, object]:
        return {"queries": self.queries, "pixels": self.pixels, "population": self.population}

    def space(self, batch: Batch) -> Box:
        _, c, h, w = batch.origin.shape
        high = torch.tensor([float(h), float(w)] + [1.0] * c).repeat(self.pixels)
        return Box(torch.zeros_like(high), high)

    def picture(self, points: Tensor, origin: Images, ball: Ball) -> Images:
        n, c, h, w = origin.shape
        images = origin.clone()
        row = torch.arange(n, device=origin.device)
        for pixel in points.to(origin).view(n, self.pixels, 2 + c).unbind(1):
            y, x = pixel[:, 0].long().clamp(max=h - 1), pixel[:, 1].long().clamp(max=w - 1)
            images[row, :, y, x] = pixel[:, 2:]
        return ball.move(origin, images)
