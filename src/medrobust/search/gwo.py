"""Grey wolf optimiser (Mirjalili, Mirjalili & Lewis 2014, doi:10.1016/j.advengsoft.2013.12.007)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.search.moves import fittest
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class GWO(Optimiser):
    """Every wolf goes to the mean of three points around the three best ever seen.

    Biased to the origin of the coordinates: C X multiplies the leaders' coordinates by a random factor, so the pack
    gathers near 0 whatever the function is. A result on a function whose optimum lies at 0 says nothing; the measured
    bias is in docs/results/optimisers.md.
    """

    title = "Grey wolf"
    source = "Mirjalili et al. 2014, doi:10.1016/j.advengsoft.2013.12.007"
    smallest = 3

    def __init__(self, population: int = 32) -> None:
        self.population = population

    def search(self, run: SearchRun) -> Search:
        s = run.state
        s.x, f = yield run.first(self.population)
        s.leaders, s.leaders_f = fittest(s.x, f, 3)
        while True:
            a = 2 * (1 - run.progress)
            alpha, beta, delta = (around(run, leader[:, None], s.x, a) for leader in s.leaders.unbind(1))
            s.x, f = yield (alpha + beta + delta) / 3
            pool, pool_f = torch.cat((s.leaders, s.x), 1), torch.cat((s.leaders_f, f), 1)
            s.leaders, s.leaders_f = fittest(pool, pool_f, 3)


def around(run: SearchRun, leader: Tensor, x: Tensor, a: float, own: Tensor | float = 1.0) -> Tensor:
    """X_leader - A |C X_leader - X| (equations 3.5 and 3.6), A in [-a, a], C in [0, 2]; ``own`` weighs X."""
    r1, r2 = run.draws.uniform(2, *x.shape[1:]).unbind(1)
    return leader - (2 * a * r1 - a) * (2 * r2 * leader - own * x).abs()
