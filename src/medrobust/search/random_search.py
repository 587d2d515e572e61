"""Random search: uniform points, the baseline that every optimiser has to beat (Rastrigin 1963)."""

from __future__ import annotations

from medrobust.search.optimiser import Optimiser, Search, SearchRun


class RandomSearch(Optimiser):
    """Uniform points within the bounds, ``population`` at a time."""

    title = "Random search"
    source = "Rastrigin 1963; Bergstra & Bengio 2012, JMLR 13:281"
    smallest = 1

    def __init__(self, population: int = 32) -> None:
        self.population = population

    def search(self, run: SearchRun) -> Search:
        yield run.first(self.population)
        while True:
            yield run.anywhere(self.population)

    def least(self, dims: int) -> int:  # noqa: ARG002  # it does not depend on them
        return 1
