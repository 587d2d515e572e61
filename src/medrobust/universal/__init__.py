"""Universal perturbations: one change for every image. Hyper-parameters at birth, data at the call."""

from __future__ import annotations

from collections.abc import Callable

from medrobust.universal.controls import controls
from medrobust.universal.defence import DEFENCES, Retraining, UniversalTraining
from medrobust.universal.df import DFUAP
from medrobust.universal.features import GDUAP, PSPUAP, TRMUAP
from medrobust.universal.judging import fooling_rate, judge
from medrobust.universal.method import PerturbationResult, UniversalMethod
from medrobust.universal.noise import Noise
from medrobust.universal.outcome import UniversalOutcome
from medrobust.universal.perturbation import Universal
from medrobust.universal.sequential import Sequential
from medrobust.universal.sga import SGA
from medrobust.universal.sgd import SGDUAP
from medrobust.universal.simba import USimBA
from medrobust.universal.task import UniversalTask
from medrobust.universal.tile import TileSearch
from medrobust.universal.varied import Varied

# Read by the command line and by saved specs only; in Python, use the class.
UNIVERSAL: dict[str, Callable[[], UniversalMethod]] = {
    "sim": Sequential,
    "sgd": SGDUAP,
    "sga": SGA,
    "df": DFUAP,
    "gd": GDUAP,
    "trm": TRMUAP,
    "psp": PSPUAP,
    "simba": USimBA,
    "tile": TileSearch,
}

__all__ = [
    "DEFENCES",
    "DFUAP",
    "GDUAP",
    "PSPUAP",
    "SGA",
    "SGDUAP",
    "TRMUAP",
    "UNIVERSAL",
    "Noise",
    "PerturbationResult",
    "Retraining",
    "Sequential",
    "TileSearch",
    "USimBA",
    "Universal",
    "UniversalMethod",
    "UniversalOutcome",
    "UniversalTask",
    "UniversalTraining",
    "Varied",
    "controls",
    "fooling_rate",
    "judge",
]
