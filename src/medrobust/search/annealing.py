"""Simulated annealing (Kirkpatrick, Gelatt & Vecchi 1983, doi:10.1126/science.220.4598.671).

For real numbers as in Corana et al. (1987, doi:10.1145/29380.29864): the length of a step follows the share of steps
that are accepted. The first temperature is the spread of the values at random points (White 1984).
"""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.search.moves import WORST, fittest
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class SA(Optimiser):
    """One point a seed walks; worse points are accepted with probability exp(-difference / temperature).

    population: random points that are evaluated first; their spread is the first temperature, the best one walks.
    coldest: last temperature as a share of the first; it falls geometrically over the budget.
    step: first length of a step as a share of the box's width; it grows after an accepted and shrinks after a refused
    step so that 44 in 100 are accepted.
    """

    title = "Simulated annealing"
    source = "Kirkpatrick et al. 1983, doi:10.1126/science.220.4598.671"

    def __init__(self, population: int = 20, coldest: float = 1e-8, step: float = 0.2) -> None:
        self.population, self.coldest, self.step = population, coldest, step

    def search(self, run: SearchRun) -> Search:
        s = run.state
        x, f = yield run.first(self.population)
        s.spread = spread(f)
        s.x, s.f = fittest(x, f, 1)
        s.step = torch.full_like(s.x[:, :, :1], self.step)
        while True:
            s.temperature = s.spread * self.coldest**run.progress
            x, f = yield s.x + s.step * run.width * run.draws.normal(1, run.space.dims)
            chance = ((s.f - f).clamp(max=0) / s.temperature).exp()
            accepted = run.draws.uniform(1) < chance
            s.x = torch.where(accepted[:, :, None], x, s.x)
            s.f = torch.where(accepted, f, s.f)
            s.step = (s.step * torch.where(accepted, 1.12, 0.9148)[:, :, None]).clamp(1e-9, 0.5)


def spread(f: Tensor) -> Tensor:
    """(S, 1): the standard deviation of the values (S, P), without those that are none."""
    there = f < WORST
    n = there.sum(1, keepdim=True).clamp(min=1)
    middle = torch.where(there, f, 0).sum(1, keepdim=True) / n
    return (torch.where(there, f - middle, 0).square().sum(1, keepdim=True) / n).sqrt().clamp(min=1e-300)
