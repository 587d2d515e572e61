"""Adversarial training with PGD (Madry et al. 2018, arXiv:1706.06083)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from medrobust.images import Images, Logits
from medrobust.threat import Ball
from medrobust.training.adversarial.method import AdversarialTraining, Minibatch

if TYPE_CHECKING:
    from medrobust.training.trainer import Trainer


class PGDTraining(AdversarialTraining):
    """Cross-entropy of the attacked images alone. See AdversarialTraining."""

    title = "PGD adversarial training"
    source = "Madry et al. 2018, arXiv:1706.06083"

    def __init__(self, ball: Ball, steps: int = 7, step: float = 0.25, awp: float = 0.0) -> None:
        super().__init__(ball, steps, step, awp)

    def attacked(self, trainer: Trainer, batch: Minibatch) -> Images:
        return self.ascended(trainer, batch.images, self.random_start(batch), batch.choices.cross_entropy)

    def loss(self, trainer: Trainer, batch: Minibatch, attacked: Images) -> tuple[Tensor, Logits]:
        logits = trainer.logits(attacked)
        return batch.choices.cross_entropy(logits), logits
