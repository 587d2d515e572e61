"""CGBA: on a circle through the image, in the plane of the boundary's estimated normal (after Reza et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator

import numpy as np
import torch
from torch import Tensor

from medrobust.attacks.decision import DecisionBased, Legal, Search, toward
from medrobust.attacks.lowfreq import LowFrequency
from medrobust.errors import InputError
from medrobust.threat import L2, Ball

TOLERANCE = 1e-3
"""Share of the distance to which the boundary is located."""
ANGLES = (10 * TOLERANCE, 0.1)
"""Radians between which draws leave the direction to the boundary point: above the tolerance, so that their decisions
tell on which side of the boundary they are."""


class CGBA(DecisionBased):
    """L2 (after Reza et al. 2023, arXiv:2308.03163).

    With u the direction to the boundary point at distance d and v a unit vector orthogonal to it, all points
    d cos(a) (cos(a) u + sin(a) v) lie on the circle that has the way to the boundary point as its diameter: each is
    nearer than the boundary point, and on a flat boundary one of them is its nearest point.

    Differences to the paper: the draws that estimate v are taken on such circles, so that none is spent on u, which
    needs no estimate; and their frequencies fall off slowly instead of being cut, so that no direction is excluded.

    queries: of each image. evaluations: queries of the first estimate; that of iteration t takes
    ``evaluations * sqrt(t)``.
    """

    title = "CGBA"
    source = "after Reza et al. 2023, arXiv:2308.03163"
    norms = (L2,)

    def __init__(self, queries: int = 1000, evaluations: int = 30) -> None:
        super().__init__(queries)
        if evaluations < 2:
            raise InputError(f"evaluations must be at least 2, got {evaluations}")
        self.evaluations = evaluations

    def search(self, origin: Tensor, start: Tensor, ball: Ball, draws: np.random.Generator, legal: Legal) -> Search:
        basis = LowFrequency(origin.shape, max(origin.shape), origin.device)
        rows, columns = (torch.arange(k, device=origin.device).square() for k in basis.shape[1:])
        spectrum = (1.0 + rows[:, None] + columns).pow(-0.25)  # amplitude ~ frequency^-1/2
        point = yield from toward(origin, start, ball, TOLERANCE)
        t, angle, reach = 1, sum(ANGLES) / 2, math.pi / 4
        while (distance := float((point - origin).norm())) > 0:
            u = (point - origin) / distance

            def on_circle(angle: float, v: Tensor, u: Tensor = u, distance: float = distance) -> Tensor:
                return legal(origin + distance * math.cos(angle) * (math.cos(angle) * u + math.sin(angle) * v))

            count, t = int(self.evaluations * math.sqrt(t)), t + 1
            drawn = torch.from_numpy(draws.standard_normal((count, *basis.shape), np.float32)).to(origin)
            tried = on_circle(angle, _orthogonal(basis.patterns(drawn * spectrum), u))
            hits = yield tried
            share = float(hits.float().mean())
            angle = min(max(angle * (0.7 if share < 0.2 else 1.3 if share > 0.4 else 1.0), ANGLES[0]), ANGLES[1])
            if 0 < share < 1:
                weights = (hits.float() - share).view(-1, 1, 1, 1)
                v = _orthogonal((weights * (tried - point)).sum(0, keepdim=True), u)[0]
                along = yield from _farthest(lambda a, v=v, f=on_circle: f(a, v), reach)  # type: ignore[misc]
                if along > 0:
                    point = on_circle(along, v)
                reach = min(max(1.5 * along, 0.03), math.pi / 3)


def _orthogonal(patterns: Tensor, u: Tensor) -> Tensor:
    """Unit vectors: patterns (n, c, h, w) without their component along ``u``."""
    patterns = patterns - (patterns * u).sum((1, 2, 3), keepdim=True) * u
    length: Tensor = patterns.flatten(1).norm(dim=1).clamp_min(torch.finfo(u.dtype).tiny)
    return patterns / length.view(-1, 1, 1, 1)


def _farthest(near: Callable[[float], Tensor], reach: float) -> Generator[Tensor, Tensor, float]:
    """The largest angle, from 0 up, whose image reaches the goal, as far as one bracket from ``reach`` finds it."""
    good, bad = 0.0, reach
    while bad < math.pi / 2:
        hit = yield near(bad)[None]
        if not hit[0]:
            break
        good, bad = bad, min(1.5 * bad, math.pi / 2)
    while math.cos(good) - math.cos(bad) > TOLERANCE and bad > 10 * TOLERANCE:
        middle = (good + bad) / 2
        hit = yield near(middle)[None]
        good, bad = (middle, bad) if hit[0] else (good, middle)
    return good
