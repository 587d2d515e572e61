"""DF-UAP: Adam on the margin of logits (Zhang et al. 2020, arXiv:2007.06189)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.universal.losses import Hinge
from medrobust.universal.minibatch import MethodState, MinibatchMethod, Pass
from medrobust.universal.task import UniversalLoss, UniversalTask


class DFUAP(MinibatchMethod):
    """Adam over minibatches; an image that reaches the goal by kappa logits contributes no gradient.

    passes: over all images. batch: images a step. step: Adam's learning rate, as a fraction of what one pixel of an
    all-equal perturbation on the ball's edge has (0.005 beside an eps of 10/255, as published, is 0.13). kappa: in
    logits. balance: beyond one class for all images (see ``MinibatchMethod``).
    stretch: what the climb ends at is scaled to the edge of the ball.
    """

    title = "DF-UAP"
    source = "Zhang et al. 2020, arXiv:2007.06189"

    def __init__(
        self,
        passes: int = 10,
        batch: int = 16,
        step: float = 0.13,
        kappa: float = 10.0,
        balance: bool = True,
        stretch: bool = True,
    ) -> None:
        if passes < 1 or batch < 1 or not step > 0:
            raise InputError(f"passes, batch and step must be positive, got {passes}, {batch} and {step}")
        if not kappa >= 0:
            raise InputError(f"kappa must not be negative, got {kappa}")
        self.passes, self.batch, self.step = passes, batch, step
        self.kappa, self.balance, self.stretch = kappa, balance, stretch

    def loss(self) -> UniversalLoss:
        return Hinge(self.kappa)

    def start(self, task: UniversalTask) -> MethodState:
        return {"delta": task.zero(), "mean": task.zero(), "square": task.zero()}

    def sweep(self, task: UniversalTask, state: MethodState, loss: UniversalLoss, turn: Pass) -> Tensor:
        delta, mean, square = state["delta"], state["mean"], state["square"]
        length = self.step * float(task.ball.eps) / float(task.ball.size(torch.ones_like(delta)[None]))
        hits = torch.zeros((), device=task.device)
        for step in turn.steps(self.batch):
            gradient, reached = task.gradient(step.images, delta, loss)
            gradient, hits, steps = gradient / len(step.images), hits + reached, step.number + 1
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient.square()
            # the usual tiny constant of Adam would drown the gradients of a confident network
            scale = (square / (1 - 0.999**steps)).sqrt().clamp_min(torch.finfo(square.dtype).tiny)
            delta = task.project(delta + length * (mean / (1 - 0.9**steps)) / scale)
        state |= {"delta": delta, "mean": mean, "square": square}
        return hits
