"""GWO-PSO: the hybrid HPSOGWO of Singh & Singh (2017, doi:10.1155/2017/2030489)."""

from __future__ import annotations

import torch

from medrobust.search.gwo import around
from medrobust.search.moves import fittest
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class GWOPSO(Optimiser):
    """Wolves with a velocity, drawn to the points around the three best that the grey wolf optimiser would average.

    pull: c1 = c2 = c3. Biased to the origin of the coordinates as GWO is: the inertia even multiplies a wolf's own
    coordinates. The measured bias is in docs/results/optimisers.md.
    """

    title = "GWO-PSO"
    source = "Singh & Singh 2017, doi:10.1155/2017/2030489"
    smallest = 3

    def __init__(self, population: int = 32, pull: float = 0.5) -> None:
        self.population, self.pull = population, pull

    def search(self, run: SearchRun) -> Search:
        s, P, D = run.state, self.population, run.space.dims
        s.x, f = yield run.first(P)
        s.leaders, s.leaders_f = fittest(s.x, f, 3)
        s.velocity = torch.zeros_like(s.x)
        while True:
            a = 2 * (1 - run.progress)
            w = 0.5 + run.draws.uniform(1, 1) / 2
            velocity = s.velocity
            for leader in s.leaders.unbind(1):
                towards = around(run, leader[:, None], s.x, a, own=w) - s.x
                velocity = velocity + self.pull * run.draws.uniform(P, D) * towards
            s.velocity = w * velocity
            s.x, f = yield s.x + s.velocity
            pool, pool_f = torch.cat((s.leaders, s.x), 1), torch.cat((s.leaders_f, f), 1)
            s.leaders, s.leaders_f = fittest(pool, pool_f, 3)
