"""SHADE: differential evolution that remembers which F and CR worked.

Tanabe & Fukunaga 2013, doi:10.1109/CEC.2013.6557555, on JADE's mutation and archive (Zhang & Sanderson 2009,
doi:10.1109/TEVC.2009.2014613).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrobust.search.de import crossed
from medrobust.search.moves import better, halfway, others, ranked, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class SHADE(Optimiser):
    """current-to-pbest/1/bin with an archive of beaten parents; F and CR drawn around a memory of successes.

    memory: H, pairs of remembered F and CR. greed: the p-best are at most this share of the population.
    The archive holds as many parents as the population.
    """

    title = "SHADE"
    source = "Tanabe & Fukunaga 2013, doi:10.1109/CEC.2013.6557555"
    smallest = 4

    def __init__(self, population: int = 32, memory: int = 100, greed: float = 0.2) -> None:
        self.population, self.memory, self.greed = population, memory, greed

    def search(self, run: SearchRun) -> Search:
        s, P = run.state, self.population
        s.x, s.f = yield run.first(P)
        s.m_f, s.m_cr = torch.full((2, run.rows, self.memory), 0.5, dtype=s.x.dtype, device=run.device)
        s.next = torch.zeros(run.rows, 1, dtype=torch.long, device=run.device)
        s.archive, s.archived = s.x, torch.zeros_like(s.next)
        while True:
            slot = run.draws.below(self.memory, P)
            s.cr = (s.m_cr.gather(1, slot) + 0.1 * run.draws.normal(P)).clamp(0, 1)
            s.weight = cauchy_above_zero(s.m_f.gather(1, slot), run.draws.uniform(P)).clamp(max=1)
            mutant = s.x + s.weight[:, :, None] * (self.p_best(run) - s.x + self.difference(run))
            trial = crossed(run, s.x, mutant, s.cr[:, :, None])
            trial, g = yield halfway(trial, s.x, run.low, run.high)
            self.remember(run, g)
            s.x, s.f = better(s.x, s.f, trial, g)

    def p_best(self, run: SearchRun) -> Tensor:
        """(S, P, D): for each point one of the p best, p drawn anew for each."""
        s, P = run.state, self.population
        low = min(2 / P, self.greed)
        among = ((low + (self.greed - low) * run.draws.uniform(P)) * P).clamp(min=1).floor()
        return take(s.x, ranked(s.f).gather(1, (run.draws.uniform(P) * among).long()))

    def difference(self, run: SearchRun) -> Tensor:
        """x_r1 - x_r2, r1 from the population, r2 from population and archive, both different from the point."""
        s, P = run.state, self.population
        r1 = others(run.draws, P, 1)[:, :, 0]
        index = torch.arange(P, device=run.device).expand_as(r1)
        r2 = (run.draws.uniform(P) * (P + s.archived - 2)).long()
        for taken in torch.stack((index, r1)).sort(0).values:
            r2 = r2 + (r2 >= taken)
        return take(s.x, r1) - take(torch.cat((s.x, s.archive), 1), r2)

    def remember(self, run: SearchRun, g: Tensor) -> None:
        s, P = run.state, self.population
        won = g < s.f
        gain = torch.where(won, s.f - g, 0)
        w = gain / gain.sum(1, keepdim=True).clamp(min=1e-300)
        w = torch.where(gain.sum(1, keepdim=True) > 0, w, 0)
        F, CR = s.weight.double(), s.cr.double()
        lehmer = (w * F * F).sum(1, keepdim=True) / (w * F).sum(1, keepdim=True).clamp(min=1e-300)
        any_won = won.any(1, keepdim=True)
        for memory, value in ((s.m_f, lehmer), (s.m_cr, (w * CR).sum(1, keepdim=True))):
            old = memory.gather(1, s.next)
            memory.scatter_(1, s.next, torch.where(any_won, value.to(old.dtype), old))
        s.next = (s.next + any_won) % self.memory
        # beaten parents join; of too many, random ones go
        filled = torch.arange(P, device=run.device) < s.archived
        key = torch.where(torch.cat((filled, won), 1), run.draws.uniform(2 * P), -1.0)
        s.archive = take(torch.cat((s.archive, s.x), 1), ranked(-key)[:, :P])
        s.archived = (s.archived + won.sum(1, keepdim=True)).clamp(max=P)


def cauchy_above_zero(centre: Tensor, u: Tensor) -> Tensor:
    """Cauchy with scale 0.1, given that it is positive: what drawing again until it is positive yields."""
    lowest = 0.5 - torch.atan(centre / 0.1) / math.pi
    value = centre + 0.1 * torch.tan(math.pi * (lowest + (1 - lowest) * u - 0.5))
    return value.clamp(1e-6, 1e6)
