"""MART (Wang et al. 2020, "Improving adversarial robustness requires revisiting misclassified examples")."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust.images import Images, Logits
from medrobust.threat import Ball
from medrobust.training.adversarial.method import Minibatch, Regularised

if TYPE_CHECKING:
    from medrobust.training.trainer import Trainer


class MART(Regularised):
    """Cross-entropy with a margin on the attacked images, and the divergence where the clean answer is unsure.

    See Regularised.
    """

    title = "MART"
    source = "Wang et al. 2020, ICLR"

    def __init__(self, ball: Ball, steps: int = 10, step: float = 0.25, awp: float = 0.0, beta: float = 5.0) -> None:
        super().__init__(ball, steps, step, awp, beta)

    def attacked(self, trainer: Trainer, batch: Minibatch) -> Images:
        return self.ascended(trainer, batch.images, self.random_start(batch), batch.choices.cross_entropy)

    def loss(self, trainer: Trainer, batch: Minibatch, attacked: Images) -> tuple[Tensor, Logits]:
        clean, logits = trainer.logits(batch.images), trainer.logits(attacked)
        choices = batch.choices
        after = choices.log_probabilities(logits)
        own = F.one_hot(choices.labels, after.shape[1]).bool()
        other = after.masked_fill(own, -torch.inf).amax(1)
        boosted = -after[own] - torch.log1p(-other.exp().clamp_max(1 - 1e-6))
        unsure = 1 - choices.log_probabilities(clean)[own].exp()
        return choices.mean(boosted + self.beta * choices.divergence(clean, logits) * unsure), logits
