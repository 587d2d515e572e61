"""BBO-PSO: biogeography-based learning particle swarm (Chen et al. 2017, doi:10.1007/s00500-016-2307-7)."""

from __future__ import annotations

import torch

from medrobust.search.bbo import migrated
from medrobust.search.moves import better, ranked, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class BBOPSO(Optimiser):
    """Particles learn, component by component, from the past bests of others that migration chooses.

    Bad particles learn more from others, good ones are learnt from more; inertia falls from 0.9 to 0.2.
    """

    title = "BBO-PSO"
    source = "Chen et al. 2017, doi:10.1007/s00500-016-2307-7"

    def __init__(self, population: int = 32, pull: float = 1.496, fastest: float = 0.2) -> None:
        self.population, self.pull, self.fastest = population, pull, fastest

    def search(self, run: SearchRun) -> Search:
        s, P, D = run.state, self.population, run.space.dims
        s.x, f = yield run.first(P)
        s.best, s.best_f, s.velocity = s.x, f, torch.zeros_like(s.x)
        while True:
            order = ranked(s.best_f)
            s.x, s.velocity, s.best, s.best_f = (take(t, order) for t in (s.x, s.velocity, s.best, s.best_f))
            example = migrated(run, s.best, s.best)
            inertia = 0.9 - 0.7 * run.progress
            limit = self.fastest * run.width
            velocity = inertia * s.velocity + self.pull * run.draws.uniform(P, D) * (example - s.x)
            s.velocity = velocity.clamp(-limit, limit)
            s.x, f = yield s.x + s.velocity
            s.best, s.best_f = better(s.best, s.best_f, s.x, f)
