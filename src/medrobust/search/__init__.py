"""Search without gradients: optimisers with an ask-and-tell interface.

Batched over seeds and population, with a hard budget of evaluations per seed. Nothing here knows networks.
"""

from __future__ import annotations

from medrobust.search.adam import Adam
from medrobust.search.annealing import SA
from medrobust.search.ant_colony import ACOR
from medrobust.search.bat import BA
from medrobust.search.bbo import BBO
from medrobust.search.bbo_pso import BBOPSO
from medrobust.search.bee_colony import ABC
from medrobust.search.box import Binary, Box, Integer, Real, Space
from medrobust.search.cmaes import CMAES, SepCMAES
from medrobust.search.cuckoo import CS
from medrobust.search.de import DE
from medrobust.search.firefly import FA
from medrobust.search.ga import GA
from medrobust.search.gsa import GSA
from medrobust.search.gwo import GWO
from medrobust.search.gwo_pso import GWOPSO
from medrobust.search.harmony import HS
from medrobust.search.mfo import MFO
from medrobust.search.minimising import Result, StoppedError, minimise
from medrobust.search.optimiser import GRADIENT_COST, Optimiser, Search, SearchRun
from medrobust.search.pso import PSO
from medrobust.search.pso_abc import PSOABC
from medrobust.search.pso_ga import PSOGA
from medrobust.search.random_search import RandomSearch
from medrobust.search.shade import SHADE
from medrobust.search.then import Then
from medrobust.search.tlbo import TLBO
from medrobust.search.woa import WOA

OPTIMISERS: dict[str, type[Optimiser]] = {
    "random": RandomSearch,
    "ga": GA,
    "pso": PSO,
    "de": DE,
    "shade": SHADE,
    "cma-es": CMAES,
    "sep-cma-es": SepCMAES,
    "gwo": GWO,
    "woa": WOA,
    "abc": ABC,
    "aco-r": ACOR,
    "cs": CS,
    "fa": FA,
    "ba": BA,
    "sa": SA,
    "hs": HS,
    "gsa": GSA,
    "bbo": BBO,
    "tlbo": TLBO,
    "mfo": MFO,
    "pso-ga": PSOGA,
    "gwo-pso": GWOPSO,
    "pso-abc": PSOABC,
    "bbo-pso": BBOPSO,
}
"""Every one can be made without arguments, and any may be followed by gradient descent (Then)."""

__all__ = [
    "ABC",
    "ACOR",
    "BA",
    "BBO",
    "BBOPSO",
    "CMAES",
    "CS",
    "DE",
    "FA",
    "GA",
    "GRADIENT_COST",
    "GSA",
    "GWO",
    "GWOPSO",
    "HS",
    "MFO",
    "OPTIMISERS",
    "PSO",
    "PSOABC",
    "PSOGA",
    "SA",
    "SHADE",
    "TLBO",
    "WOA",
    "Adam",
    "Binary",
    "Box",
    "Integer",
    "Optimiser",
    "RandomSearch",
    "Real",
    "Result",
    "Search",
    "SearchRun",
    "SepCMAES",
    "Space",
    "StoppedError",
    "Then",
    "minimise",
]
