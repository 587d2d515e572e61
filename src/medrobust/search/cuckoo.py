"""Cuckoo search (Yang & Deb 2009, arXiv:1003.1594), as in the authors' program (Yang & Deb 2010, arXiv:1005.2908)."""

from __future__ import annotations

import torch

from medrobust.search.moves import better, levy, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class CS(Optimiser):
    """All cuckoos take a Lévy flight, then a share of the eggs is discovered and replaced.

    abandoned: p_a; as in the program a component is replaced with probability 1 - p_a, where the paper's text says p_a.
    step: alpha, the flights' length in units of a nest's distance from the best.
    Both halves of a generation are evaluated; a new egg stays where it is no worse.
    """

    title = "Cuckoo search"
    source = "Yang & Deb 2009, arXiv:1003.1594"

    def __init__(self, population: int = 25, abandoned: float = 0.25, step: float = 0.01) -> None:
        self.population, self.abandoned, self.step = population, abandoned, step

    def search(self, run: SearchRun) -> Search:
        s, P, D = run.state, self.population, run.space.dims
        s.x, s.f = yield run.first(P)
        while True:
            flight = self.step * levy(run.draws, P, D) * (s.x - run.best_x[:, None])
            egg, g = yield s.x + flight * run.draws.normal(P, D)
            s.x, s.f = better(s.x, s.f, egg, g)

            one, two = (take(s.x, run.draws.uniform(P).argsort(dim=1, stable=True)) for _ in range(2))
            replaced = run.draws.uniform(P, D) > self.abandoned
            egg, g = yield torch.where(replaced, s.x + run.draws.uniform(1, 1) * (one - two), s.x)
            s.x, s.f = better(s.x, s.f, egg, g)
