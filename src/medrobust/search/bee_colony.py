"""Artificial bee colony (Karaboga & Basturk 2007, doi:10.1007/s10898-007-9149-x)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.search.moves import others, roulette, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class ABC(Optimiser):
    """Employed bees try a neighbour of their food source, onlookers of sources drawn by quality; worn sources go.

    population: bees; half are employed, one a source, half look on. Both phases are evaluated, and counted.
    limit: failures after which a source is left, by default sources x dimensions; at most one a cycle.
    The bees of a phase fly at once: of several onlookers at one source the best counts. The scout that replaces a
    source flies in place of that source's employed bee in the next cycle.
    """

    title = "Artificial bee colony"
    source = "Karaboga & Basturk 2007, doi:10.1007/s10898-007-9149-x"
    smallest = 4

    def __init__(self, population: int = 32, limit: int | None = None) -> None:
        self.population, self.limit = population, limit

    def search(self, run: SearchRun) -> Search:
        s, sources = run.state, self.population // 2
        s.x, s.f = yield run.first(sources)
        begin(run)
        while True:
            yield from self.cycle(run)

    def cycle(self, run: SearchRun, guide: bool = False) -> Search:
        """One cycle on run.state's sources; ``guide``: onlookers take the partner from run.state.guide (S, 1, D)."""
        s = run.state
        sources = s.x.shape[1]
        employed = neighbour(run, s.x, take(s.x, others(run.draws, sources, 1)[:, :, 0]))
        trial, g = yield torch.where(s.scouting[:, :, None], run.anywhere(sources), employed)
        settle(run, torch.arange(sources, device=run.device).expand_as(s.f), trial, g, s.scouting)

        s.chosen = roulette(run.draws, quality(s.f), sources)
        step = 1 + run.draws.below(sources - 1, sources)  # some other source
        partner = s.guide.expand_as(s.x) if guide else take(s.x, (s.chosen + step) % sources)
        trial, g = yield neighbour(run, take(s.x, s.chosen), partner)
        settle(run, s.chosen, trial, g, torch.zeros_like(s.scouting))

        limit = self.limit or sources * run.space.dims
        worn = s.failures.argmax(1, keepdim=True)
        s.scouting = torch.zeros_like(s.scouting).scatter(1, worn, s.failures.gather(1, worn) > limit)

    def least(self, dims: int) -> int:  # noqa: ARG002  # it does not depend on them
        return self.population // 2


def begin(run: SearchRun) -> None:
    run.state.failures = torch.zeros_like(run.state.f, dtype=torch.long)
    run.state.scouting = torch.zeros_like(run.state.f, dtype=torch.bool)


def quality(f: Tensor) -> Tensor:
    """The nectar of a source: positive, larger is better."""
    return torch.where(f >= 0, 1 / (1 + f.clamp(min=0)), 1 + f.abs())


def neighbour(run: SearchRun, x: Tensor, partner: Tensor) -> Tensor:
    """One component moves towards or away from the partner's."""
    points, dims = x.shape[1:]
    moves = torch.zeros_like(x, dtype=torch.bool).scatter(2, run.draws.below(dims, points, 1), True)
    phi = 2 * run.draws.uniform(points, 1) - 1
    return torch.where(moves, x + phi * (x - partner), x)


def settle(run: SearchRun, at: Tensor, trial: Tensor, g: Tensor, forced: Tensor) -> None:
    """Trials (S, K) at sources ``at``: the best of each source replaces it where it is better, or where ``forced``."""
    s = run.state
    K = g.shape[1]
    best = torch.full_like(s.f, torch.inf).scatter_reduce(1, at, g, "amin")
    index = torch.arange(K, device=g.device).expand_as(g)
    winner = torch.full_like(s.failures, K).scatter_reduce(
        1, at, torch.where(g == best.gather(1, at), index, K), "amin"
    )
    visits = torch.zeros_like(s.failures).scatter_add(1, at, torch.ones_like(at))
    wins = (best < s.f) | forced
    s.x = torch.where(wins[:, :, None], take(trial, winner.clamp(max=K - 1)), s.x)
    s.f = torch.where(wins, best, s.f)
    s.failures = torch.where(wins, 0, s.failures + visits)
