"""Stochastic gradient ascent on one shared perturbation (Shafahi et al. 2020, arXiv:1811.11304)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.universal.losses import BoundedCrossEntropy
from medrobust.universal.minibatch import MethodState, MinibatchMethod
from medrobust.universal.schedule import cosine
from medrobust.universal.task import UniversalLoss, UniversalTask


class SGDUAP(MinibatchMethod):
    """A step along the mean gradient of min(cross-entropy, beta) of each minibatch, then back into the ball.

    passes: over all images. batch: images a step. step: length of the first step, as a fraction of eps; it falls to a
    twentieth by the last (``decay``). beta: an image whose cross-entropy is larger contributes no gradient. momentum:
    share of the old direction that is kept. balance: classes that are not fooled yet gain weight (see ``Balanced``).
    stretch: what the climb ends at is scaled to the edge of the ball. SGDUAP(step=0.1, beta=9, momentum=0, decay=False,
    balance=False, stretch=False) is the method as published.
    """

    title = "SGD-UAP"
    source = "Shafahi et al. 2020, arXiv:1811.11304"

    def __init__(
        self,
        passes: int = 5,
        batch: int = 16,
        step: float = 0.2,
        beta: float = 2.0,
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

    def sweep(
        self, task: UniversalTask, state: MethodState, loss: UniversalLoss, number: int, order: np.ndarray
    ) -> Tensor:
        each, hits = math.ceil(task.n / self.batch), torch.zeros((), device=task.device)
        for done, index in enumerate(task.chunks(order, self.batch), number * each):
            gradient, reached = task.gradient(index, state["delta"], loss)
            hits += reached
            state["direction"] = self.momentum * state["direction"] + gradient / len(index)
            length = self.step * (cosine(done, self.passes * each) if self.decay else 1.0)
            state["delta"] = task.step(state["delta"], length, state["direction"])
        return hits
