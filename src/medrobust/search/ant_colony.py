"""Ant colony for continuous domains, ACO_R (Socha & Dorigo 2008, doi:10.1016/j.ejor.2006.06.046)."""

from __future__ import annotations

import torch

from medrobust.search.moves import fittest, roulette, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class ACOR(Optimiser):
    """Ants draw around the solutions of an archive, the better ones more often.

    population: k, the archive. ants: m, new solutions an iteration.
    greed: q, small favours the best of the archive; evaporation: xi, large searches wider.
    """

    title = "Ant colony (ACO_R)"
    source = "Socha & Dorigo 2008, doi:10.1016/j.ejor.2006.06.046"

    def __init__(self, population: int = 50, ants: int = 2, greed: float = 1e-4, evaporation: float = 0.85) -> None:
        self.population, self.ants, self.greed, self.evaporation = population, ants, greed, evaporation

    def search(self, run: SearchRun) -> Search:
        s, k = run.state, self.population
        x, f = yield run.first(k)
        s.x, s.f = fittest(x, f, k)
        ranks = torch.arange(k, dtype=torch.float64, device=run.device)
        weights = (-((ranks / (self.greed * k)) ** 2) / 2).exp()
        while True:
            # one solution of the archive guides an ant through all dimensions
            guide = take(s.x, roulette(run.draws, weights.expand(run.rows, k), self.ants))
            spread = (s.x[:, None] - guide[:, :, None]).abs().sum(2) * (self.evaporation / (k - 1))
            x, f = yield guide + spread * run.draws.normal(self.ants, run.space.dims)
            s.x, s.f = fittest(torch.cat((s.x, x), 1), torch.cat((s.f, f), 1), k)
