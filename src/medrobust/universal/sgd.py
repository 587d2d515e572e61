"""Stochastic gradient ascent on one shared perturbation (Shafahi et al. 2020, arXiv:1811.11304)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.universal.balance import Balanced
from medrobust.universal.losses import BoundedCrossEntropy
from medrobust.universal.minibatch import MethodState, MinibatchMethod, MinibatchStep, Pass
from medrobust.universal.task import UniversalLoss, UniversalTask


class SGDUAP(MinibatchMethod):
    """A step along the mean gradient of min(cross-entropy, beta) of each minibatch, then back into the ball.

    passes: over all images. batch: images a step. step: length of the first step, as a fraction of eps; it falls to a
    twentieth by the last (``decay``). beta: an image whose cross-entropy is larger contributes no gradient; 100 is no
    bound. momentum: share of the old direction that is kept, 0 in a balanced climb. balance: beyond one class for all
    images (see ``MinibatchMethod``). stretch: what the climb ends at is scaled to the edge of the ball.
    SGDUAP(step=0.1, beta=9, momentum=0, decay=False, balance=False, stretch=False) is the method as published.

    Images that left their class long ago keep the largest gradient of the unbounded cross-entropy. What moves them
    further is common to many images, and so moves unseen ones; a loss that leaves them out (a small beta, a margin)
    goes for the last images of those it has, one by one (figures: docs/results/universal.md).
    """

    title = "SGD-UAP"
    source = "Shafahi et al. 2020, arXiv:1811.11304"

    def __init__(
        self,
        passes: int = 10,
        batch: int = 10,
        step: float = 0.1,
        beta: float = 100.0,
        momentum: float = 0.9,
        decay: bool = True,
        balance: bool = True,
        stretch: bool = True,
    ) -> None:
        if passes < 1 or batch < 1 or not step > 0 or not beta > 0:
            raise InputError(f"passes, batch, step, beta must be positive, got {passes}, {batch}, {step}, {beta}")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must lie in [0, 1), got {momentum}")
        self.passes, self.batch, self.step, self.beta = passes, batch, step, beta
        self.momentum, self.decay, self.balance, self.stretch = momentum, decay, balance, stretch

    def loss(self) -> UniversalLoss:
        return BoundedCrossEntropy(self.beta)

    def start(self, task: UniversalTask) -> MethodState:
        return {"delta": task.zero(), "direction": task.zero()}

    def sweep(self, task: UniversalTask, state: MethodState, loss: UniversalLoss, turn: Pass) -> Tensor:
        # the weights of the classes change faster than momentum forgets, and both would be turned back and forth
        momentum = 0.0 if isinstance(loss, Balanced) else self.momentum
        hits = torch.zeros((), device=task.device)
        for step in turn.steps(self.batch):
            gradient, reached = self.gradient(task, step, state["delta"], loss)
            hits += reached
            state["direction"] = momentum * state["direction"] + gradient / len(step.images)
            length = self.step * (step.shrink if self.decay else 1.0)
            state["delta"] = task.step(state["delta"], length, state["direction"])
        return hits

    def gradient(
        self, task: UniversalTask, step: MinibatchStep, delta: Tensor, loss: UniversalLoss
    ) -> tuple[Tensor, Tensor]:
        """Summed over the images of the step, and how many of them reach the goal."""
        return task.gradient(step.images, delta, loss)
