"""How a classifier under training does under attack: what the epoch to keep is chosen by."""

from __future__ import annotations

import numpy as np
import torch

from medrobust import seeds
from medrobust.attacks import PGD, run
from medrobust.classifier import Classifier
from medrobust.threat import Ball, Untargeted
from medrobust.training.evaluate import Scores, score
from medrobust.training.pixels import Pixels
from medrobust.training.sampling import balanced

STEPS = 10
IMAGES = 256
"""At most, every class equally often; the same at every epoch."""


def validation_rows(labels: np.ndarray, seed: int) -> np.ndarray:
    """Positions of the images that are attacked."""
    draw = seeds.generator(seed, "robust validation").permutation(len(labels))
    order = draw if labels.ndim == 2 else balanced(labels, seed, 0)
    return np.unique(order[:IMAGES])


def robust_scores(classifier: Classifier, data: Pixels, rows: np.ndarray, ball: Ball, seed: int) -> Scores:
    """Scores of ``data`` at ``rows`` under PGD within ``ball``."""
    images, labels = data.images(rows), data.labels[rows]
    goal = Untargeted(torch.from_numpy(labels))
    attacked = run(
        PGD(STEPS), classifier, images, goal, ball, seed=seed, ids=rows.tolist(), full=labels.ndim == 2
    ).images
    with torch.no_grad():
        probabilities = classifier.probabilities(attacked).cpu().numpy()
    return score(probabilities, labels)
