"""RayS: the signs of blocks are flipped, kept where the boundary comes nearer along the ray (Chen & Gu 2020)."""

from __future__ import annotations

import itertools

import numpy as np
import torch
from torch import Tensor

from medrobust.attacks.decision import DecisionBased, Legal, Search, bisect
from medrobust.threat import Ball, Linf

TOLERANCE = 0.01
"""Share of the distance to which the boundary is located, and by which a flip must come nearer."""


class RayS(DecisionBased):
    """Linf (Chen & Gu 2020, arXiv:2006.12792): rays whose pixels all change by the same amount.

    Blocks are squares that halve from one round to the next, in random order; a flip that does not help costs one
    query. Where no ray of equal changes reaches the goal (a targeted one, mostly), the first ray is that to the start.
    """

    title = "RayS"
    source = "Chen & Gu 2020, arXiv:2006.12792"
    norms = (Linf,)

    def search(self, origin: Tensor, start: Tensor, ball: Ball, draws: np.random.Generator, legal: Legal) -> Search:
        delta = start - origin
        rays = torch.stack([torch.where(delta >= 0, 1.0, -1.0), torch.ones_like(delta), -torch.ones_like(delta)])
        hits = yield legal(origin + rays)
        length = 1.0
        if hits.any():
            ray = rays[int(hits.float().argmax())].clone()
        else:
            length = float(ball.size(delta[None]))
            ray = delta / length

        def at(size: float) -> Tensor:
            return legal(origin + size * ray)

        length = yield from bisect(at, length, TOLERANCE * length)
        height, width = origin.shape[1:]
        for level in itertools.count(1):
            side = 2 ** (1 + (level - 1) % max(1, (max(height, width) - 1).bit_length()))
            cells = np.array(list(np.ndindex(len(origin), min(side, height), min(side, width))))
            for channel, i, j in draws.permutation(cells).tolist():
                block = (channel, _part(i, height, side), _part(j, width, side))
                ray[block] *= -1
                nearer = (1 - TOLERANCE) * length
                hit = yield at(nearer)[None]
                if hit[0]:
                    length = yield from bisect(at, nearer, TOLERANCE * nearer)
                else:
                    ray[block] *= -1


def _part(i: int, pixels: int, side: int) -> slice:
    """Part ``i`` of so many pixels in ``side`` parts (one pixel each where there are fewer pixels than parts)."""
    side = min(side, pixels)
    return slice(i * pixels // side, (i + 1) * pixels // side)
