"""Search without gradients: optimisers that are asked for points and told what they are worth.

Batched over seeds and population, with a hard budget of evaluations per seed. Nothing here knows networks.
"""

from __future__ import annotations

from medrobust.search.box import Binary, Box, Integer, Real, Space
from medrobust.search.cmaes import CMAES, SepCMAES
from medrobust.search.de import DE
from medrobust.search.ga import GA
from medrobust.search.minimising import Result, StoppedError, minimise
from medrobust.search.optimiser import GRADIENT_COST, Optimiser, Run, Search
from medrobust.search.pso import PSO
from medrobust.search.random_search import RandomSearch

OPTIMISERS: dict[str, type[Optimiser]] = {
    "random": RandomSearch,
    "ga": GA,
    "pso": PSO,
    "de": DE,
    "cma-es": CMAES,
    "sep-cma-es": SepCMAES,
}
"""Every one can be made without arguments; read by the command line and by saved specs only."""

__all__ = [
    "CMAES", "DE", "GA", "GRADIENT_COST", "OPTIMISERS", "PSO", "Binary", "Box", "Integer", "Optimiser", "RandomSearch",
    "Real", "Result", "Run", "Search", "SepCMAES", "Space", "StoppedError", "minimise",
]  # fmt: skip
