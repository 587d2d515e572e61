"""Whale optimisation (Mirjalili & Lewis 2016, doi:10.1016/j.advengsoft.2016.01.008)."""

from __future__ import annotations

import math

import torch

from medrobust.search.moves import take
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class WOA(Optimiser):
    """Every whale circles the best point, spirals into it, or goes to a random other whale.

    spiral: b, the shape of the logarithmic spiral.
    Biased to the origin of the coordinates: C X multiplies a point's coordinates by a random factor. A result on a
    function whose optimum lies at 0 says nothing, and elsewhere it is hardly better than random search; the measured
    bias is in docs/results/optimisers.md.
    """

    title = "Whale"
    source = "Mirjalili & Lewis 2016, doi:10.1016/j.advengsoft.2016.01.008"

    def __init__(self, population: int = 32, spiral: float = 1.0) -> None:
        self.population, self.spiral = population, spiral

    def search(self, run: SearchRun) -> Search:
        s, P = run.state, self.population
        s.x, _ = yield run.first(P)
        while True:
            a = 2 * (1 - run.progress)
            r1, r2, p, u = run.draws.uniform(4, P, 1).unbind(1)
            A, C, turn = 2 * a * r1 - a, 2 * r2, 2 * u - 1
            best = run.best_x[:, None]
            prey = torch.where(A.abs() < 1, best, take(s.x, run.draws.below(P, P)))
            circled = prey - A * (C * prey - s.x).abs()
            spun = (best - s.x).abs() * ((self.spiral * turn).exp() * (2 * math.pi * turn).cos()) + best
            s.x, _ = yield torch.where(p < 0.5, circled, spun)
