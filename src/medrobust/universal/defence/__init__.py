"""Defences against universal perturbations: training on them, and what a fresh attack does afterwards."""

from __future__ import annotations

from collections.abc import Callable

from medrobust.universal.defence.hardening import Defence, Hardened
from medrobust.universal.defence.retraining import Retraining
from medrobust.universal.defence.rounds import PoolResult, Round
from medrobust.universal.defence.universal_training import UniversalTraining

# Read by the command line only; in Python, use the class.
DEFENCES: dict[str, Callable[..., Defence]] = {"retrain": Retraining, "universal-training": UniversalTraining}

__all__ = ["DEFENCES", "Defence", "Hardened", "PoolResult", "Retraining", "Round", "UniversalTraining"]
