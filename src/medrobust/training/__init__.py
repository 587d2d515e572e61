"""Training a classifier: fine-tuned or from scratch, selected on validation, resumable after a kill."""

from __future__ import annotations

from medrobust.training.augment import Augment
from medrobust.training.evaluate import Scores, evaluate, score
from medrobust.training.fit import fit
from medrobust.training.recipe import Recipe

__all__ = ["Augment", "Recipe", "Scores", "evaluate", "fit", "score"]
