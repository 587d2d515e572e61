"""Stochastic gradient ascent on one shared perturbation (Shafahi et al. 2020, arXiv:1811.11304)."""

from __future__ import annotations

import math

import torch

from medrobust.errors import InputError
from medrobust.universal.balance import balanced
from medrobust.universal.losses import BoundedCrossEntropy
from medrobust.universal.method import Found, Task
from medrobust.universal.minibatch import MinibatchMethod
from medrobust.universal.schedule import cosine


class SGDUAP(MinibatchMethod):
    """A step along the mean gradient of min(cross-entropy, beta) of each minibatch, then back into the ball.

    passes: over all images. batch: images a step. step: length of the first step, as a fraction of eps; it falls to a
    twentieth by the last (``decay``). beta: an image whose cross-entropy is larger has no more say. momentum: share
    of the old direction that is kept. balance: classes that are not fooled yet gain weight (see ``Balanced``).
    SGDUAP(step=0.1, beta=9, momentum=0, decay=False, balance=False) is the method as published.
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
    ) -> None:
        if passes < 1 or batch < 1 or not step > 0 or not beta > 0:
            raise InputError(f"passes, batch, step, beta must be positive, got {passes}, {batch}, {step}, {beta}")
        if not 0 <= momentum < 1:
            raise InputError(f"momentum must lie in [0, 1), got {momentum}")
        self.passes, self.batch, self.step, self.beta = passes, batch, step, beta
        self.momentum, self.decay, self.balance = momentum, decay, balance

    def climb(self, task: Task, seed: int) -> Found:
        loss = balanced(BoundedCrossEntropy(self.beta), task, self.balance)
        delta, direction, history = task.zero(), task.zero(), []
        steps, done = self.passes * math.ceil(task.n / self.batch), 0
        for number in range(self.passes):
            hits = torch.zeros((), device=task.device)
            for index in task.chunks(task.order(seed, number), self.batch):
                gradient, reached = task.gradient(index, delta, loss)
                hits += reached
                direction = self.momentum * direction + gradient / len(index)
                length = self.step * (cosine(done, steps) if self.decay else 1.0)
                delta = task.step(delta, length, direction)
                done += 1
            history.append({"pass": number + 1, "rate": float(hits) / task.n})
            if history[-1]["rate"] == 1:
                break
        return Found(delta, history)
