"""Logits of any head as choices between classes, so that each loss is written once."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust.images import UNKNOWN, Labels, Logits


class Choices(NamedTuple):
    """Choices between classes: one an image, or one (absent, present) for each known finding of an image.

    labels: int64 (m,). weights: float32 (m,), what each counts. known: bool (n, k), the findings that are among them;
    None of one class an image.
    """

    labels: Tensor
    weights: Tensor
    known: Tensor | None

    @classmethod
    def of(cls, labels: Labels, presence_weights: Tensor | None) -> Choices:
        """labels: (n,), or (n, k) of findings with the ``presence_weights`` of ``training.losses``."""
        if presence_weights is None:
            return cls(labels, torch.ones(len(labels), device=labels.device), None)
        known = labels != UNKNOWN
        weights = torch.where(labels == 1, presence_weights, torch.ones_like(presence_weights))
        return cls(labels[known], weights[known], known)

    def log_probabilities(self, logits: Logits) -> Tensor:
        """(m, classes) of canonical logits (n, k)."""
        if self.known is not None:
            present = logits[self.known]
            logits = torch.stack([-present / 2, present / 2], 1)
        return F.log_softmax(logits, 1)

    def mean(self, losses: Tensor) -> Tensor:
        """Of losses (m,), as they count."""
        return (self.weights * losses).sum() / max(len(losses), 1)

    def cross_entropy(self, logits: Logits) -> Tensor:
        """The mean, a scalar."""
        return self.mean(F.nll_loss(self.log_probabilities(logits), self.labels, reduction="none"))

    def divergence(self, clean: Logits, attacked: Logits) -> Tensor:
        """(m,): Kullback-Leibler divergence of the probabilities under attack from the clean ones."""
        before, after = self.log_probabilities(clean), self.log_probabilities(attacked)
        return (before.exp() * (before - after)).sum(1)

    def right(self, logits: Logits) -> Tensor:
        """Share that are decided rightly, a scalar."""
        return (self.log_probabilities(logits).argmax(1) == self.labels).float().mean()
