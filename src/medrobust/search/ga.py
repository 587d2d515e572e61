"""Real-coded genetic algorithm: tournaments, simulated binary crossover and polynomial mutation.

The scheme of Holland (1975) and Goldberg (1989) with the operators for real numbers of Deb & Agrawal (1995, Complex
Systems 9:115) and Deb & Goyal (1996, Computer Science and Informatics 26:30).
"""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.search.moves import fittest, root, take, tournament
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class GA(Optimiser):
    """Children of tournament winners replace all but the ``elite`` best.

    crossover: share of pairs that mix; spread: eta of the crossover, larger keeps children nearer to their parents.
    mutation: share of components that mutate, by default one a child; nearness: eta of the mutation.
    """

    title = "Genetic algorithm"
    source = "Deb & Agrawal 1995, Complex Systems 9:115"

    def __init__(
        self,
        population: int = 32,
        elite: int = 1,
        tournament: int = 2,
        crossover: float = 0.9,
        spread: float = 15.0,
        mutation: float | None = None,
        nearness: float = 20.0,
    ) -> None:
        if not 0 <= elite < population:
            raise InputError(f"GA needs a population of at least elite + 1 = {elite + 1}, got {population}")
        self.population, self.elite, self.tournament = population, elite, tournament
        self.crossover, self.spread, self.mutation, self.nearness = crossover, spread, mutation, nearness

    def search(self, run: SearchRun) -> Search:
        s = run.state
        s.x, s.f = yield run.first(self.population)
        while True:
            children, g = yield self.children(run, s.x, s.f, self.population - self.elite)
            x, f = fittest(s.x, s.f, self.elite)
            s.x, s.f = torch.cat((x, children), 1), torch.cat((f, g), 1)

    def children(self, run: SearchRun, x: Tensor, f: Tensor, count: int) -> Tensor:
        """(S, count, D)."""
        pairs = (count + 1) // 2
        mother, father = take(x, tournament(run.draws, f, 2 * pairs, self.tournament)).chunk(2, 1)
        mixed = simulated_binary(run, mother, father, self.crossover, self.spread)[:, :count]
        return polynomial(run, mixed, self.mutation or 1 / x.shape[2], self.nearness)


def simulated_binary(run: SearchRun, mother: Tensor, father: Tensor, share: float, eta: float) -> Tensor:
    """Two children a pair, (S, 2 pairs, D): as far apart as one-point crossover of binary strings would put them.

    Which child gets which of a component's two values is drawn, as in the authors' program (KanGAL's NSGA-II,
    crossover.c); else every child would be one of its parents again, a little shifted.
    """
    pairs, dims = mother.shape[1:]
    u = run.draws.uniform(pairs, dims)
    beta = root(torch.where(u < 0.5, 2 * u, 1 / (2 * (1 - u))), eta + 1)
    mixes = (run.draws.uniform(pairs, dims) < 0.5) & (run.draws.uniform(pairs, 1) < share)
    beta = torch.where(run.draws.uniform(pairs, dims) < 0.5, beta, -beta)
    half = torch.where(mixes, beta, 1.0) * (mother - father) / 2
    middle = (mother + father) / 2
    return torch.cat((middle + half, middle - half), 1)


def polynomial(run: SearchRun, x: Tensor, share: float, eta: float) -> Tensor:
    """Move a ``share`` of the components by up to the box's width, mostly little."""
    points, dims = x.shape[1:]
    u = run.draws.uniform(points, dims)
    delta = torch.where(u < 0.5, root(2 * u, eta + 1) - 1, 1 - root(2 - 2 * u, eta + 1))
    mutates = run.draws.uniform(points, dims) < share
    return torch.where(mutates, x + delta * run.width, x)
