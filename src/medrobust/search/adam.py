"""Gradient descent by Adam (Kingma & Ba 2015, arXiv:1412.6980) inside a box, counted like any search."""

from __future__ import annotations

import math

import torch

from medrobust.search.optimiser import GRADIENT_COST, Optimiser, Search, SearchRun


class Adam(Optimiser):
    """Every gradient step is charged three evaluations. ``needs_gradient``: the caller tells values and gradients.

    rate: first step as a share of the box's width; it falls to nothing along a half cosine over the budget.
    population: so many independent starts (the caller's points first), each with its share of the budget.
    """

    title = "Adam"
    source = "Kingma & Ba 2015, arXiv:1412.6980"
    smallest = 1

    def __init__(self, rate: float = 0.01, population: int = 1, beta1: float = 0.9, beta2: float = 0.999) -> None:
        self.rate, self.population, self.beta1, self.beta2 = rate, population, beta1, beta2

    def search(self, run: SearchRun) -> Search:
        s = run.state
        s.x = run.first(self.population)
        s.mean, s.square = torch.zeros_like(s.x), torch.zeros_like(s.x)
        t = 0
        while True:
            run.needs_gradient = True
            s.x, _ = yield s.x
            assert run.gradient is not None  # the run takes no answer without it
            t += 1
            # the last step of a budget may reach only some of the starts: the others are over
            s.mean, s.square = s.mean[:, : s.x.shape[1]], s.square[:, : s.x.shape[1]]
            s.mean = self.beta1 * s.mean + (1 - self.beta1) * run.gradient
            s.square = self.beta2 * s.square + (1 - self.beta2) * run.gradient * run.gradient
            first, second = s.mean / (1 - self.beta1**t), s.square / (1 - self.beta2**t)
            rate = self.rate * (1 + math.cos(math.pi * run.progress)) / 2
            s.x = s.x - rate * run.width * first / (second.sqrt() + 1e-12)
            s.x = s.x.clamp(run.low, run.high)

    def least(self, dims: int) -> int:  # noqa: ARG002  # it does not depend on them
        return GRADIENT_COST * self.population
