"""One optimiser, then another from the best point that it found: a search followed by gradient descent, for example."""

from __future__ import annotations

from medrobust.errors import InputError
from medrobust.search.adam import Adam
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class Then(Optimiser):
    """``Then(GWO(), Adam())``. share: of the budget, for the first; each anneals over its own part."""

    def __init__(self, first: Optimiser, second: Optimiser | None = None, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise InputError(f"share must lie between 0 and 1, got {share:g}")
        self.first, self.second, self.share = first, second or Adam(), share
        self.population, self.smallest = first.population, first.smallest
        self.title = f"{self.first.title}, then {self.second.title}"
        self.source = f"{self.first.source}; {self.second.source}"

    def search(self, run: SearchRun) -> Search:
        least = self.first.least(run.space.dims)
        last = run.budget - self.second.least(run.space.dims)
        run.begin_stage(min(max(least, round(self.share * run.budget)), last))
        yield from _until_over(self.first, run)
        run.begin_stage(run.budget)
        yield from self.second.search(run)

    def least(self, dims: int) -> int:
        return self.first.least(dims) + self.second.least(dims)


def _until_over(optimiser: Optimiser, run: SearchRun) -> Search:
    search = optimiser.search(run)
    points = next(search)
    while True:
        answer = yield points
        if run.stage_over:
            return
        points = search.send(answer)
