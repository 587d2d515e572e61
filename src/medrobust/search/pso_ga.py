"""PSO-GA: the hybrid HGAPSO of Juang (2004, doi:10.1109/TSMCB.2003.818557)."""

from __future__ import annotations

import torch

from medrobust.search.ga import GA
from medrobust.search.moves import better
from medrobust.search.optimiser import Optimiser, Search, SearchRun
from medrobust.search.pso import PSO


class PSOGA(Optimiser):
    """The better half is moved as a swarm; its crossover and mutation then make the other half anew."""

    title = "PSO-GA"
    source = "Juang 2004, doi:10.1109/TSMCB.2003.818557"
    smallest = 4

    def __init__(self, population: int = 32) -> None:
        self.population = population
        self.pso, self.ga = PSO(), GA(mutation=0.1)

    def search(self, run: SearchRun) -> Search:
        s, half = run.state, self.population // 2
        s.x, s.f = yield run.first(self.population)
        # of every individual: its own best, and how fast it is; children begin at rest
        s.best, s.best_f, s.velocity = s.x, s.f, torch.zeros_like(s.x)
        while True:
            order = s.f.argsort(dim=1, stable=True)[:, :half]
            wide = order[:, :, None].expand(-1, -1, run.space.dims)
            s.x, s.best, s.velocity = (t.gather(1, wide) for t in (s.x, s.best, s.velocity))
            s.best_f = s.best_f.gather(1, order)
            s.velocity = self.pso.faster(run, s.x, s.velocity, s.best, run.best_x[:, None])
            s.x, s.f = yield s.x + s.velocity
            s.best, s.best_f = better(s.best, s.best_f, s.x, s.f)

            child, g = yield self.ga.children(run, s.best, s.best_f, self.population - half)
            s.x, s.f = torch.cat((s.x, child), 1), torch.cat((s.f, g), 1)
            s.best, s.best_f = torch.cat((s.best, child), 1), torch.cat((s.best_f, g), 1)
            s.velocity = torch.cat((s.velocity, torch.zeros_like(child)), 1)
