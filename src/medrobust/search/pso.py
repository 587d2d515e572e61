"""Particle swarm (Kennedy & Eberhart 1995, doi:10.1109/ICNN.1995.488968).

With Clerc & Kennedy's constriction (2002, doi:10.1109/4235.985692), under which a swarm settles, and the limit on the
speed of Eberhart & Shi (2000, doi:10.1109/CEC.2000.870279).
"""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.search.moves import better
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class PSO(Optimiser):
    """Every particle is drawn to the best point of its own past and to the best of the whole swarm.

    inertia, own, swarm: w, c1 and c2; the defaults are the constriction factor's.
    fastest: limit of a component's speed as a share of the box's width.
    A particle that hits a bound stays on it and loses that component of its velocity.
    """

    title = "Particle swarm"
    source = "Kennedy & Eberhart 1995, doi:10.1109/ICNN.1995.488968"

    def __init__(
        self,
        population: int = 32,
        inertia: float = 0.7298,
        own: float = 1.49618,
        swarm: float = 1.49618,
        fastest: float = 0.5,
    ) -> None:
        self.population, self.inertia, self.own, self.swarm, self.fastest = population, inertia, own, swarm, fastest

    def search(self, run: SearchRun) -> Search:
        s = run.state
        s.x, f = yield run.first(self.population)
        s.best, s.best_f = s.x, f
        s.velocity = (run.anywhere(self.population) - s.x) / 2
        while True:
            s.velocity = self.faster(run, s.x, s.velocity, s.best, run.best_x[:, None])
            new_x = s.x + s.velocity
            s.velocity = torch.where((new_x < run.low) | (new_x > run.high), 0.0, s.velocity)
            s.x, f = yield new_x
            s.best, s.best_f = better(s.best, s.best_f, s.x, f)

    def faster(self, run: SearchRun, x: Tensor, velocity: Tensor, own: Tensor, swarm: Tensor) -> Tensor:
        """The next velocity, towards ``own`` best points (S, P, D) and the ``swarm``'s (S, 1, D)."""
        r1, r2 = run.draws.uniform(2, *x.shape[1:]).unbind(1)
        velocity = self.inertia * velocity + self.own * r1 * (own - x) + self.swarm * r2 * (swarm - x)
        limit = self.fastest * run.width
        return velocity.clamp(-limit, limit)
