"""Adversarial training: weights are fitted to images as an attacker changes them, within a ball."""

from __future__ import annotations

from collections.abc import Callable

from medrobust.training.adversarial.dual_batch_norm import DualNormTraining
from medrobust.training.adversarial.fast import FastTraining
from medrobust.training.adversarial.free import FreeTraining
from medrobust.training.adversarial.mart import MART
from medrobust.training.adversarial.method import AdversarialTraining
from medrobust.training.adversarial.pgd import PGDTraining
from medrobust.training.adversarial.trades import TRADES

# Read by the command line only; in Python, use the class.
METHODS: dict[str, Callable[..., AdversarialTraining]] = {
    "pgd": PGDTraining,
    "trades": TRADES,
    "mart": MART,
    "fast": FastTraining,
    "free": FreeTraining,
    "dual": DualNormTraining,
}

__all__ = [
    "MART",
    "METHODS",
    "TRADES",
    "AdversarialTraining",
    "DualNormTraining",
    "FastTraining",
    "FreeTraining",
    "PGDTraining",
]
