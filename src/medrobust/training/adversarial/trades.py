"""TRADES (Zhang et al. 2019, arXiv:1901.08573): clean cross-entropy, and how far an attack moves the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from medrobust.images import Images, Logits
from medrobust.threat import Ball
from medrobust.training.adversarial.method import Minibatch, Regularised

if TYPE_CHECKING:
    from medrobust.training.trainer import Trainer


class TRADES(Regularised):
    """Clean cross-entropy + beta x divergence; the attack raises the divergence. See Regularised."""

    title = "TRADES"
    source = "Zhang et al. 2019, arXiv:1901.08573"

    def __init__(self, ball: Ball, steps: int = 10, step: float = 0.25, awp: float = 0.0, beta: float = 6.0) -> None:
        super().__init__(ball, steps, step, awp, beta)

    def attacked(self, trainer: Trainer, batch: Minibatch) -> Images:
        with trainer.evaluating() as asked, torch.no_grad():
            clean = asked(batch.images)

        def height(logits: Logits) -> Tensor:
            return batch.choices.divergence(clean, logits).sum()

        # at the image itself the divergence is 0 and so is its gradient
        return self.ascended(trainer, batch.images, self.random_start(batch), height)

    def loss(self, trainer: Trainer, batch: Minibatch, attacked: Images) -> tuple[Tensor, Logits]:
        clean, logits = trainer.logits(batch.images), trainer.logits(attacked)
        choices = batch.choices
        return choices.cross_entropy(clean) + self.beta * choices.mean(choices.divergence(clean, logits)), logits
