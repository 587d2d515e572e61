"""Training a classifier: fine-tuned or from scratch, selected on validation, resumable after a kill."""

from __future__ import annotations

from medrobust.training.adversary import Adversary
from medrobust.training.augment import Augment
from medrobust.training.evaluate import Scores, evaluate, score
from medrobust.training.fit import check, fit
from medrobust.training.further import check_trainable, further
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import Recipe

__all__ = [
    "Adversary",
    "Augment",
    "Pixels",
    "Recipe",
    "Scores",
    "check",
    "check_trainable",
    "evaluate",
    "fit",
    "further",
    "score",
]
