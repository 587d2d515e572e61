"""HopSkipJump: estimate the boundary's normal, jump along it, return to the boundary (Chen et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Generator

import numpy as np
import torch
from torch import Tensor

from medrobust.attacks.decision import DecisionBased, Legal, Search, toward
from medrobust.errors import InputError
from medrobust.threat import Ball, Linf


class HopSkipJump(DecisionBased):
    """L2 and Linf (Chen, Jordan & Wainwright 2020, arXiv:1904.02144, algorithm 2).

    queries: of each image. evaluations: queries of the first estimate of the normal; that of iteration t takes
    ``evaluations * sqrt(t)``.
    """

    title = "HopSkipJump"
    source = "Chen et al. 2020, arXiv:1904.02144"

    def __init__(self, queries: int = 1000, evaluations: int = 100) -> None:
        super().__init__(queries)
        if evaluations < 1:
            raise InputError(f"evaluations must be at least 1, got {evaluations}")
        self.evaluations = evaluations

    def search(self, origin: Tensor, start: Tensor, ball: Ball, draws: np.random.Generator, legal: Legal) -> Search:
        linf, pixels, t = isinstance(ball, Linf), origin.numel(), 1
        tolerance = pixels**-2 if linf else pixels**-1.5
        point = yield from toward(origin, start, ball, tolerance)
        while (distance := float(ball.size((point - origin)[None]))) > 0:
            radius = 0.1 if t == 1 else distance / pixels
            direction = yield from _normal(point, int(self.evaluations * math.sqrt(t)), radius, linf, draws, legal)
            step, t = distance / math.sqrt(t), t + 1
            while step > 1e-6 * distance:
                jumped = legal(point + step * direction)
                hit = yield jumped[None]
                if hit[0]:
                    point = yield from toward(origin, jumped, ball, tolerance)
                    break
                step /= 2


def _normal(
    point: Tensor, count: int, radius: float, linf: bool, draws: np.random.Generator, legal: Legal
) -> Generator[Tensor, Tensor, Tensor]:
    """The direction of steepest ascent into the goal's region, from ``count`` queries around ``point``."""
    shape = (count, *point.shape)
    drawn = 2 * draws.random(shape, np.float32) - 1 if linf else draws.standard_normal(shape, np.float32)
    noise = torch.from_numpy(drawn).to(point)
    noise = noise / noise.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    tried = legal(point + radius * noise)
    hits = yield tried
    weights = 2 * hits.to(point.dtype) - 1
    if hits.any() and not hits.all():
        weights = weights - weights.mean()
    normal: Tensor = (weights.view(-1, 1, 1, 1) * (tried - point)).mean(0)
    length: Tensor = normal.norm().clamp_min(torch.finfo(normal.dtype).tiny)
    return normal.sign() if linf else normal / length
