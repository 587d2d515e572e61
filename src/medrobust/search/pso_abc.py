"""PSO-ABC: the recombination-based hybrid of Kıran & Gündüz (2013, doi:10.1016/j.asoc.2012.12.007)."""

from __future__ import annotations

import torch

from medrobust.search.bee_colony import ABC, begin, quality
from medrobust.search.moves import better, fittest
from medrobust.search.optimiser import Optimiser, Search, SearchRun
from medrobust.search.pso import PSO


class PSOABC(Optimiser):
    """A swarm and a bee colony side by side; what recombines from their best guides both.

    After each cycle "the best" takes every component from the swarm's or the colony's best point, by their quality; it
    is evaluated. The swarm follows it, and onlookers take it as their partner.
    population: half of them particles, half bees.
    """

    title = "PSO-ABC"
    source = "Kıran & Gündüz 2013, doi:10.1016/j.asoc.2012.12.007"
    smallest = 8

    def __init__(self, population: int = 32) -> None:
        self.population = population
        self.particles = population // 2
        self.pso, self.bees = PSO(), ABC(population - self.particles)

    def search(self, run: SearchRun) -> Search:
        s, n = run.state, self.particles
        x, f = yield run.first(n + self.bees.population // 2)
        s.particle, s.x = x[:, :n], x[:, n:]
        s.best, s.best_f, s.f = s.particle, f[:, :n], f[:, n:]
        s.velocity = torch.zeros_like(s.particle)
        begin(run)
        while True:
            # the worse of the two guides does not: "the best" is the recombination only where it is better
            (swarm, swarm_f), (colony, colony_f) = fittest(s.best, s.best_f, 1), fittest(s.x, s.f, 1)
            by_swarm, by_colony = quality(swarm_f), quality(colony_f)
            share = (by_swarm / (by_swarm + by_colony))[:, :, None].to(s.x.dtype)
            s.guide, _ = yield torch.where(run.draws.uniform(1, run.space.dims) < share, swarm, colony)
            s.guide = run.best_x[:, None]

            s.velocity = self.pso.faster(run, s.particle, s.velocity, s.best, s.guide)
            s.particle, f = yield s.particle + s.velocity
            s.best, s.best_f = better(s.best, s.best_f, s.particle, f)
            yield from self.bees.cycle(run, guide=True)

    def least(self, dims: int) -> int:  # noqa: ARG002  # it does not depend on them
        return self.particles + self.bees.population // 2
