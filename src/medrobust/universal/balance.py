"""Equal say for every class: what takes a nontargeted perturbation beyond sending all images into one class.

The worst-off class weighs most, as in min-max attacks on several domains at once (Wang et al. 2021, arXiv:1906.03563).
"""

from __future__ import annotations

import torch

from medrobust.classifier import Classifier
from medrobust.images import Logits, PerImage
from medrobust.threat import Goal, Targeted
from medrobust.universal.task import UniversalLoss

MEMORY = 0.1
"""Weight of the newest image in the running share of a class."""
FLOOR = 0.02
"""A class that is fooled throughout keeps this weight, or it would drift back."""


class Balanced:
    """A loss in which each image weighs as much as the share of its class that is not fooled yet.

    Without it, a nontargeted perturbation soon sends all images into one class; those that were there before would
    have to be pushed out against the pull of all the others, and Rf stays at the share of the other classes (one half
    on two equal classes). With it, the images that stay behind gain weight until they are moved as well.

    Classes are the clean predictions. A target, and findings of a multi-label head, have no classes to balance: then
    it is the plain loss. Stateful: made anew for each perturbation.
    """

    def __init__(self, loss: UniversalLoss, classes: int, device: torch.device) -> None:
        self.loss = loss
        self.unfooled = torch.ones(classes, device=device, dtype=torch.float64)

    def __call__(self, goal: Goal, classifier: Classifier, logits: Logits) -> PerImage:
        value = self.loss(goal, classifier, logits)
        labels = goal.labels
        if isinstance(goal, Targeted) or labels is None or labels.ndim > 1:
            return value
        self._watch(labels, goal.reached(classifier.head, logits.detach()))
        weight = self.unfooled + FLOOR
        return value * (weight / weight.mean())[labels]

    def _watch(self, labels: torch.Tensor, reached: torch.Tensor) -> None:
        there = torch.zeros_like(self.unfooled).index_add_(0, labels, torch.ones_like(reached, dtype=torch.float64))
        left = torch.zeros_like(self.unfooled).index_add_(0, labels, (~reached).double())
        share = left / there.clamp_min(1)
        self.unfooled = self.unfooled + (1 - (1 - MEMORY) ** there) * (share - self.unfooled)
