"""Searches in few dimensions: coarse or low-frequency patterns, to which networks are most sensitive."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks.attack import Batch
from medrobust.attacks.lowfreq import cosines
from medrobust.attacks.population import Population
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.search import CMAES, GA, PSO, Box, Optimiser, SepCMAES
from medrobust.threat import Ball, Linf


class Subspace(Population):
    """A population searches the ``side`` x ``side`` numbers a channel that a pattern is made of.

    Under Linf a pattern is steepened and cut at eps, so that most pixels change by eps, the corners of the ball, where
    a linear network would break first. Under L2 it is scaled to length eps.
    """

    steep: ClassVar[float] = 2.0
    """The pattern's standard deviation, as a multiple of eps, before it is cut at eps."""

    def __init__(self, queries: int, side: int, optimiser: Optimiser, population: int) -> None:
        super().__init__(queries)
        if side < 1:
            raise InputError(f"side must be at least 1, got {side}")
        self.side, self.population, self.optimiser = side, population, optimiser

    @property
    def settings(self) -> dict[str, object]:
        return {"queries": self.queries, "side": self.side, "population": self.population}

    @abstractmethod
    def pattern(self, weights: Tensor, h: int, w: int) -> Images:
        """(n, c, h, w) of numbers (n, c, rows, columns)."""

    def space(self, batch: Batch) -> Box:
        _, c, h, w = batch.origin.shape
        return Box(-1.0, 1.0, c * min(self.side, h) * min(self.side, w))

    def picture(self, points: Tensor, origin: Images, ball: Ball) -> Images:
        n, c, h, w = origin.shape
        whole = self.pattern(points.to(origin).view(n, c, min(self.side, h), min(self.side, w)), h, w)
        if not isinstance(ball, Linf):
            return ball.move(origin, origin + ball.eps * ball.at_edge(whole))
        spread = whole.square().mean((1, 2, 3), keepdim=True).sqrt().clamp(min=1e-12)
        return ball.move(origin, origin + self.steep * ball.eps * whole / spread)


def waves(weights: Tensor, h: int, w: int) -> Images:
    """The sum of the lowest cosines with these weights.

    One wave after another: a matrix product may add in another order in another batch.
    """
    down, across = (cosines(s, k).to(weights) for s, k in ((h, weights.shape[2]), (w, weights.shape[3])))
    lines = torch.zeros(*weights.shape[:3], w, device=weights.device)
    for k in range(weights.shape[3]):
        lines += weights[:, :, :, k, None] * across[:, k]
    whole = torch.zeros(*weights.shape[:2], h, w, device=weights.device)
    for k in range(weights.shape[2]):
        whole += lines[:, :, k, None, :] * down[:, k, None]
    return whole


class CosineCMAES(Subspace):
    """CMA-ES over low-frequency cosines.

    separable: learn one variance a coefficient instead of all covariances; cheaper, and as good for few queries.
    population: 0 for Hansen's 4 + 3 ln D.
    """

    title = "CMA-ES (cosines)"
    source = "Hansen 2016, arXiv:1604.00772; low frequencies: Guo et al. 2018, arXiv:1809.08758"

    def __init__(self, queries: int = 500, side: int = 8, population: int = 0, separable: bool = True) -> None:
        kind = SepCMAES if separable else CMAES
        super().__init__(queries, side, kind(population or None), population)
        self.separable = separable

    @property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "separable": self.separable}

    def pattern(self, weights: Tensor, h: int, w: int) -> Images:
        return waves(weights, h, w)


class CosinePSO(Subspace):
    """A particle swarm over low-frequency cosines."""

    title = "PSO (cosines)"
    source = "Kennedy & Eberhart 1995, doi:10.1109/ICNN.1995.488968; low frequencies: Guo et al. 2018, arXiv:1809.08758"

    def __init__(self, queries: int = 500, side: int = 8, population: int = 20) -> None:
        super().__init__(queries, side, PSO(population), population)

    def pattern(self, weights: Tensor, h: int, w: int) -> Images:
        return waves(weights, h, w)


class GenAttack(Subspace):
    """A genetic algorithm over a coarse grid of squares, the best candidate always surviving.

    As the paper's: a small population, elitism, and a search in fewer dimensions than pixels. Its operators are
    ``search.GA``'s (tournaments, simulated binary crossover, polynomial mutation), not the published ones.
    """

    title = "GenAttack"
    source = "Alzantot et al. 2019, arXiv:1805.11090"

    def __init__(self, queries: int = 500, side: int = 8, population: int = 6) -> None:
        super().__init__(queries, side, GA(population), population)

    def pattern(self, weights: Tensor, h: int, w: int) -> Images:
        rows, columns = (
            torch.arange(s, device=weights.device) * k // s for s, k in ((h, weights.shape[2]), (w, weights.shape[3]))
        )
        return weights[:, :, rows][:, :, :, columns]
