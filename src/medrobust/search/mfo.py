"""Moth-flame optimisation (Mirjalili 2015, doi:10.1016/j.knosys.2015.07.006)."""

from __future__ import annotations

import math

import torch

from medrobust.search.moves import fittest
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class MFO(Optimiser):
    """Moths spiral around flames, the best points seen; fewer and fewer flames burn.

    spiral: b, the shape of the logarithmic spiral.
    """

    title = "Moth-flame"
    source = "Mirjalili 2015, doi:10.1016/j.knosys.2015.07.006"

    def __init__(self, population: int = 32, spiral: float = 1.0) -> None:
        self.population, self.spiral = population, spiral

    def search(self, run: SearchRun) -> Search:
        s, P, D = run.state, self.population, run.space.dims
        s.x, f = yield run.first(P)
        s.flames, s.flames_f = fittest(s.x, f, P)
        while True:
            burning = round(P - run.progress * (P - 1))
            flame = s.flames[:, torch.arange(P, device=run.device).clamp(max=burning - 1)]
            r = -1 - run.progress
            t = r + (1 - r) * run.draws.uniform(P, D)
            s.x, f = yield (flame - s.x).abs() * ((self.spiral * t).exp() * (2 * math.pi * t).cos()) + flame
            s.flames, s.flames_f = fittest(torch.cat((s.flames, s.x), 1), torch.cat((s.flames_f, f), 1), P)
