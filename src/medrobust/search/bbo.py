"""Biogeography-based optimisation (Simon 2008, doi:10.1109/TEVC.2008.919004)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.search.moves import fittest, roulette
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class BBO(Optimiser):
    """Bad habitats take components over from good ones; the best and the worst mutate most.

    mutation: m_max, the largest share of components that are drawn anew. elite: habitats that survive unchanged.
    """

    title = "Biogeography"
    source = "Simon 2008, doi:10.1109/TEVC.2008.919004"
    smallest = 3

    def __init__(self, population: int = 32, mutation: float = 0.02, elite: int = 2) -> None:
        if not 0 <= elite < population:
            raise InputError(f"BBO needs a population of at least elite + 1 = {elite + 1}, got {population}")
        self.population, self.mutation, self.elite = population, mutation, elite

    def search(self, run: SearchRun) -> Search:
        s, P, D = run.state, self.population, run.space.dims
        x, f = yield run.first(P)
        s.x, s.f = fittest(x, f, P)
        mutation = self.mutation * rarity(P).to(run.device, s.x.dtype)[:, None]
        while True:
            x = migrated(run, s.x, s.x)
            x = torch.where(run.draws.uniform(P, D) < mutation, run.anywhere(P), x)
            # the elite keep their place, and the worst of the changed give way: so many are not evaluated
            x, f = yield x[:, : P - self.elite]
            x, f = torch.cat((s.x[:, : self.elite], x), 1), torch.cat((s.f[:, : self.elite], f), 1)
            s.x, s.f = fittest(x, f, P)


def migrated(run: SearchRun, x: Tensor, source: Tensor) -> Tensor:
    """x (S, P, D), best first: habitat k takes each component from ``source`` with probability lambda_k = (k + 1) / P.

    Which habitat it comes from is drawn in proportion to mu = 1 - lambda.
    """
    P, D = x.shape[1:]
    immigration = torch.arange(1, P + 1, device=x.device, dtype=x.dtype) / P
    donors = roulette(run.draws, (1 - immigration).expand(len(x), P), P * D).view(-1, P, D)
    takes = run.draws.uniform(P, D) < immigration[:, None]
    return torch.where(takes, source.gather(1, donors), x)


def rarity(species: int) -> Tensor:
    """(P,), best first: 1 - P_k / P_max, P_k the probability of k species; binomial where both rates are linear."""
    k = torch.arange(species, 0, -1, dtype=torch.float64)
    log = -torch.lgamma(k + 1) - torch.lgamma(species - k + 1)
    return 1 - (log - log.max()).exp()
