"""Teaching-learning-based optimisation (Rao, Savsani & Vakharia 2011, doi:10.1016/j.cad.2010.12.015)."""

from __future__ import annotations

import torch

from medrobust.search.moves import better, others, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class TLBO(Optimiser):
    """A teacher moves the class by its distance from the mean, then learners move relative to one another.

    Both phases are evaluated: a generation costs twice the population. No parameters but the population.
    Not blind to the origin of the coordinates: the teaching factor of 1 or 2 multiplies the mean's coordinates. The
    measured bias is in docs/results/optimisers.md.
    """

    title = "Teaching-learning"
    source = "Rao et al. 2011, doi:10.1016/j.cad.2010.12.015"

    def __init__(self, population: int = 32) -> None:
        self.population = population

    def search(self, run: SearchRun) -> Search:
        s, P, D = run.state, self.population, run.space.dims
        s.x, s.f = yield run.first(P)
        while True:
            factor = 1 + run.draws.below(2, 1, 1)
            lesson = run.best_x[:, None] - factor * s.x.mean(1, keepdim=True)
            trial, g = yield s.x + run.draws.uniform(P, D) * lesson
            s.x, s.f = better(s.x, s.f, trial, g)

            partner = others(run.draws, P, 1)[:, :, 0]
            away = s.x - take(s.x, partner)
            away = torch.where((s.f < take(s.f, partner))[:, :, None], away, -away)
            trial, g = yield s.x + run.draws.uniform(P, D) * away
            s.x, s.f = better(s.x, s.f, trial, g)
