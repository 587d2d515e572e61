"""What all methods of adversarial training share: the attack on each minibatch, and the weight step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from medrobust.errors import InputError
from medrobust.images import Images, Logits
from medrobust.threat import Ball
from medrobust.training.adversarial.awp import moved
from medrobust.training.adversarial.classes import Choices

if TYPE_CHECKING:
    from medrobust.training.trainer import Trainer


class Minibatch(NamedTuple):
    """images: float32 (n, c, h, w) in [0, 1]. ids: their positions in the epoch. seed, epoch: what draws depend on."""

    images: Images
    choices: Choices
    ids: Sequence[int]
    seed: int
    epoch: int


class StepResult(NamedTuple):
    """loss: the mean. held: share that was decided rightly under attack."""

    loss: Tensor
    held: Tensor


class AdversarialTraining(ABC):
    """Trains on images that an attack within ``ball`` has changed.

    steps: of the attack on each minibatch. step: length of one, as a fraction of eps. awp: adversarial weight
    perturbation (Wu et al. 2020): how far weights are moved before each step, as a share of their length; 0: not.
    """

    title: str
    source: str
    folds = True
    """Whether a folded copy of the network, made once an epoch, may stand for it in the attack."""

    def __init__(self, ball: Ball, steps: int, step: float, awp: float = 0.0) -> None:
        if not (isinstance(steps, int) and steps >= 1):
            raise InputError(f"steps must be a whole number of at least 1, got {steps}")
        if not step > 0:
            raise InputError(f"step must be a positive fraction of eps such as 0.25, got {step}")
        if not 0 <= awp < 1:
            raise InputError(f"awp must be a share of the weights in [0, 1) such as 0.005, got {awp}")
        self.ball, self.steps, self.step_size, self.awp = ball, steps, step, awp

    @property
    def settings(self) -> dict[str, object]:
        """Everything that it depends on, as JSON."""
        return {
            "norm": self.ball.name,
            "eps": float(self.ball.eps),
            "steps": self.steps,
            "step": self.step_size,
            "awp": self.awp,
        }

    def step(self, trainer: Trainer, batch: Minibatch) -> StepResult:
        """Attack the minibatch, and one weight step on it."""
        attacked = self.attacked(trainer, batch)
        loss, logits = self.loss(trainer, batch, attacked)
        if self.awp:
            with moved(trainer.clf.net, loss, self.awp):
                trainer.backward(self.loss(trainer, batch, attacked)[0])
        else:
            trainer.backward(loss)
        trainer.optimiser.step()
        return StepResult(loss.detach(), batch.choices.right(logits.detach()))

    def check(self, net: nn.Module) -> None:  # noqa: B027 - most train every network
        """InputError for a network that it cannot train."""

    def prepare(self, net: nn.Module) -> None:
        """Change a network, which is a copy, for the training."""
        self.check(net)

    def finish(self, net: nn.Module) -> None:  # noqa: B027 - most change nothing
        """Undo what ``prepare`` changed: the trained network has the modules of the one that was given."""

    @abstractmethod
    def attacked(self, trainer: Trainer, batch: Minibatch) -> Images:
        """The images as the attack changes them."""

    @abstractmethod
    def loss(self, trainer: Trainer, batch: Minibatch, attacked: Images) -> tuple[Tensor, Logits]:
        """The loss of the weights, and the logits of the attacked images."""

    def random_start(self, batch: Minibatch) -> Images:
        """Somewhere in the ball."""
        draw = self.ball.draw(batch.seed, f"adversarial training {batch.epoch}", batch.ids, batch.images.shape[1:])
        return self.ball.move(batch.images, batch.images + self.ball.eps * draw.to(batch.images.device))

    def ascended(self, trainer: Trainer, images: Images, start: Images, height: Callable[[Logits], Tensor]) -> Images:
        """``start`` after steps up ``height``. The network is in evaluation mode, as an attacker meets it."""
        attacked = start
        with trainer.evaluating() as logits:
            for _ in range(self.steps):
                attacked = attacked.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(height(logits(attacked)), attacked)
                stepped = attacked.detach() + self.step_size * self.ball.eps * self.ball.ascent(gradient)
                attacked = self.ball.move(images, stepped)
        return attacked.detach()


class Regularised(AdversarialTraining):
    """beta: weight of the divergence between clean answers and those under attack; more keeps less clean accuracy."""

    def __init__(self, ball: Ball, steps: int, step: float, awp: float, beta: float) -> None:
        super().__init__(ball, steps, step, awp)
        if not beta > 0:
            raise InputError(f"beta must be a positive number such as 6, got {beta}")
        self.beta = beta

    @property
    def settings(self) -> dict[str, object]:
        return {**super().settings, "beta": self.beta}
