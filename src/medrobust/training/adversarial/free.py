"""Free adversarial training (Shafahi et al. 2019, arXiv:1904.12843): one backward pass for weights and attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from medrobust.threat import Ball
from medrobust.training.adversarial.method import Minibatch, StepResult
from medrobust.training.adversarial.pgd import PGDTraining

if TYPE_CHECKING:
    from medrobust.training.trainer import Trainer


class FreeTraining(PGDTraining):
    """Each minibatch is seen ``steps`` times in a row, and attack and weights move at each: so many weight steps.

    The published one carries the perturbation over to the next minibatch; here each begins at a random point, so that
    a training resumes at any epoch.
    """

    title = "Free adversarial training"
    source = "Shafahi et al. 2019, arXiv:1904.12843"

    def __init__(self, ball: Ball, steps: int = 4, step: float = 1.0) -> None:
        super().__init__(ball, steps, step)

    def step(self, trainer: Trainer, batch: Minibatch) -> StepResult:
        attacked, total = self.random_start(batch), torch.zeros((), device=batch.images.device)
        held = total
        for _ in range(self.steps):
            attacked = attacked.detach().requires_grad_()
            loss, logits = self.loss(trainer, batch, attacked)
            trainer.backward(loss)
            gradient = attacked.grad
            assert gradient is not None
            trainer.optimiser.step()
            stepped = attacked.detach() + self.step_size * self.ball.eps * self.ball.ascent(gradient)
            attacked = self.ball.move(batch.images, stepped)
            total, held = total + loss.detach(), batch.choices.right(logits.detach())
        return StepResult(total / self.steps, held)
