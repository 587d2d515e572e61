"""SGA: stochastic gradient aggregation (Liu et al. 2023, arXiv:2308.06015)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.universal.losses import BoundedCrossEntropy
from medrobust.universal.minibatch import MethodState, MinibatchMethod, Pass
from medrobust.universal.task import UniversalLoss, UniversalTask


class SGA(MinibatchMethod):
    """Small steps on a copy look ahead; the sum of the gradients met there gives one step of the perturbation itself.

    Gradients of small minibatches are noisy, those of large ones get stuck early: the inner steps see the first, the
    outer one averages them.

    passes: over all images. outer: images a step of the perturbation. inner: images a step of the copy. repeats: times
    the copy goes through the outer batch. step, inner_step: lengths of the first steps, as a fraction of eps; they
    fall to a twentieth by the last (``decay``). beta: an image whose cross-entropy is larger contributes no gradient;
    100 is no bound. balance: beyond one class for all images (see ``MinibatchMethod``).
    stretch: what the climb ends at is scaled to the edge of the ball.
    SGA(passes=20, outer=250, inner=10, repeats=4, step=0.1, inner_step=0.1, decay=False, balance=False, stretch=False)
    is the schedule as published, at 80 gradients an image.
    """

    title = "SGA"
    source = "Liu et al. 2023, arXiv:2308.06015"

    def __init__(
        self,
        passes: int = 10,
        outer: int = 32,
        inner: int = 8,
        repeats: int = 1,
        step: float = 0.2,
        inner_step: float = 0.2,
        beta: float = 100.0,
        decay: bool = True,
        balance: bool = True,
        stretch: bool = True,
    ) -> None:
        if min(passes, outer, inner, repeats) < 1:
            raise InputError(f"passes, batches and repeats are at least 1, got {passes}, {outer}, {inner}, {repeats}")
        if not (step > 0 and inner_step > 0 and beta > 0):
            raise InputError(f"steps and beta must be positive, got {step}, {inner_step} and {beta}")
        self.passes, self.outer, self.inner, self.repeats = passes, outer, inner, repeats
        self.step, self.inner_step, self.beta = step, inner_step, beta
        self.decay, self.balance, self.stretch = decay, balance, stretch

    def loss(self) -> UniversalLoss:
        return BoundedCrossEntropy(self.beta)

    def sweep(self, task: UniversalTask, state: MethodState, loss: UniversalLoss, turn: Pass) -> Tensor:
        hits = torch.zeros((), device=task.device)
        for step in turn.steps(self.outer):
            shrink = step.shrink if self.decay else 1.0
            total, reached = self._ahead(task, state["delta"], step.images, loss, self.inner_step * shrink)
            state["delta"] = task.step(state["delta"], self.step * shrink, total)
            hits += reached
        return hits

    def _ahead(
        self, task: UniversalTask, delta: Tensor, index: np.ndarray, loss: UniversalLoss, length: float
    ) -> tuple[Tensor, Tensor]:
        """Sum of the gradients that a copy of ``delta`` meets on its way through the batch; goals reached."""
        copy, total, hits = delta, task.zero(), torch.zeros((), device=task.device)
        for _ in range(self.repeats):
            for part in task.chunks(index, self.inner):
                gradient, reached = task.gradient(part, copy, loss)
                copy = task.step(copy, length, gradient)
                total += gradient
                hits += reached
        return total, hits
