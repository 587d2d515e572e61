"""Loss functions for universal perturbations, one value an image; they work from one logit and two classes up."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from medrobust.classifier import Classifier
from medrobust.images import Logits, PerImage
from medrobust.threat import Goal, Targeted

FAINT = -40.0
"""Logarithm of the smallest cross-entropy distinguished from smaller ones: its gradient is far from underflow."""


def log_cross_entropy(goal: Goal, classifier: Classifier, logits: Logits) -> PerImage:
    """Logarithm of the cross-entropy: for one image the same direction, and it never vanishes in float."""
    return goal.cross_entropy(classifier.head, logits)


@dataclass(frozen=True)
class BoundedCrossEntropy:
    """min(cross-entropy, beta) (Shafahi et al. 2020, arXiv:1811.11304).

    A loss above beta is clipped and contributes no gradient.
    With a target it is minus the cross-entropy of the target, which is bounded by itself.
    """

    beta: float = 9.0

    def __call__(self, goal: Goal, classifier: Classifier, logits: Logits) -> PerImage:
        logarithm = goal.cross_entropy(classifier.head, logits)
        return -_raised(-logarithm) if isinstance(goal, Targeted) else _raised(logarithm).clamp_max(self.beta)


@dataclass(frozen=True)
class Hinge:
    """-relu(kappa - margin): the margin, until the goal is reached by kappa logits (DF-UAP's clamped logit loss)."""

    kappa: float = 10.0

    def __call__(self, goal: Goal, classifier: Classifier, logits: Logits) -> PerImage:
        return -(self.kappa - goal.margin(classifier.head, logits)).relu()


def _raised(logarithm: PerImage) -> PerImage:
    """exp, with its tangent below ``FAINT``: a network that is sure beyond what float32 holds keeps a slope."""
    faint = math.exp(FAINT)
    return torch.where(logarithm < FAINT, faint * (1 + logarithm - FAINT), logarithm.clamp_min(FAINT).exp())
