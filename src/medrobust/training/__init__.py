"""Training a classifier: fine-tuned, from scratch or adversarially, selected on validation, resumable after a kill."""

from __future__ import annotations

from medrobust.training.adversarial import METHODS, AdversarialTraining
from medrobust.training.adversary import Adversary
from medrobust.training.augment import Augment
from medrobust.training.evaluate import Scores, evaluate, score
from medrobust.training.fit import check, fit
from medrobust.training.further import check_trainable, further
from medrobust.training.pixels import Pixels
from medrobust.training.recipe import Recipe

__all__ = [
    "METHODS",
    "AdversarialTraining",
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
