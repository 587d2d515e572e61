"""Differential evolution (Storn & Price 1997, J. Global Optimization 11:341, doi:10.1023/A:1008202821328)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.search.moves import better, halfway, others
from medrobust.search.optimiser import Optimiser, Search, SearchRun

STRATEGIES = ("rand/1/bin", "best/1/bin", "rand/2/bin", "current-to-best/1/bin")


class DE(Optimiser):
    """Trial points from weighted differences of others; a trial replaces its parent where it is no worse.

    strategy: what the differences are added to (STRATEGIES), all with binomial crossover.
    weight: F, or (low, high): drawn anew for every generation and seed (dither, as scipy does).
    crossover: CR, the share of components that come from the mutant; one always does.
    A generation replaces the last one as a whole. A component that leaves the box goes halfway to the bound.
    """

    title = "Differential evolution"
    source = "Storn & Price 1997, doi:10.1023/A:1008202821328"
    smallest = 6

    def __init__(
        self,
        population: int = 32,
        strategy: str = "rand/1/bin",
        weight: float | tuple[float, float] = 0.5,
        crossover: float = 0.9,
    ) -> None:
        if strategy not in STRATEGIES:
            raise InputError(f"DE has no strategy {strategy!r}; choose from {', '.join(STRATEGIES)}")
        self.population, self.strategy, self.crossover = population, strategy, crossover
        self.weight = weight if isinstance(weight, tuple) else (weight, weight)

    def search(self, run: SearchRun) -> Search:
        s = run.state
        s.x, s.f = yield run.first(self.population)
        while True:
            mutant = self._mutant(run, s.x)
            trial = crossed(run, s.x, mutant, torch.full_like(s.x[:, :, :1], self.crossover))
            trial, g = yield halfway(trial, s.x, run.low, run.high)
            s.x, s.f = better(s.x, s.f, trial, g)

    def _mutant(self, run: SearchRun, x: Tensor) -> Tensor:
        low, high = self.weight
        F = low + (high - low) * run.draws.uniform(1, 1) if high > low else low
        rows = torch.arange(len(x), device=x.device)[:, None, None]
        a, b, c, d, e = x[rows, others(run.draws, x.shape[1], 5)].unbind(2)
        best = run.best_x[:, None]
        if self.strategy == "rand/1/bin":
            return a + F * (b - c)
        if self.strategy == "best/1/bin":
            return best + F * (b - c)
        if self.strategy == "rand/2/bin":
            return a + F * (b - c) + F * (d - e)
        return x + F * (best - x) + F * (b - c)


def crossed(run: SearchRun, parent: Tensor, mutant: Tensor, rate: Tensor) -> Tensor:
    """Binomial crossover: each component from the mutant with probability ``rate`` (S, P, 1), one in any case."""
    points, dims = parent.shape[1:]
    chosen = run.draws.uniform(points, dims) < rate
    chosen = chosen.scatter(2, run.draws.below(dims, points, 1), True)
    return torch.where(chosen, mutant, parent)
