"""MART (Wang et al. 2020, "Improving adversarial robustness requires revisiting misclassified examples")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust.errors import InputError
from medrobust.images import Images, Logits
from medrobust.threat import Ball
from medrobust.training.adversarial.method import Minibatch
from medrobust.training.adversarial.pgd import PGDTraining

if TYPE_CHECKING:
    from medrobust.training.trainer import Trainer


class MART(PGDTraining):
    """Cross-entropy with a margin on the attacked images, and the divergence where the clean answer is unsure.

    beta: weight of the divergence.
    """

    title = "MART"
    source = "Wang et al. 2020, ICLR"

    def __init__(self, ball: Ball, steps: int = 10, step: float = 0.25, awp: float = 0.0, beta: float = 5.0) -> None:
        super().__init__(ball, steps, step, awp)
        if not beta > 0:
            raise InputError(f"beta must be a positive number such as 5, got {beta}")
        self.beta = beta

    @property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "beta": self.beta}

    def loss(self, trainer: Trainer, batch: Minibatch, attacked: Images) -> tuple[Tensor, Logits]:
        clean, logits = trainer.logits(batch.images), trainer.logits(attacked)
        choices = batch.choices
        after = choices.log_probabilities(logits)
        own = F.one_hot(choices.labels, after.shape[1]).bool()
        other = after.masked_fill(own, -torch.inf).amax(1)
        boosted = -after[own] - torch.log1p(-other.exp().clamp_max(1 - 1e-6))
        unsure = 1 - choices.log_probabilities(clean)[own].exp()
        return choices.mean(boosted + self.beta * choices.divergence(clean, logits) * unsure), logits
