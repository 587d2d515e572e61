"""Optimisers without gradients at an equal number of evaluations, on functions whose optimum is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrobust import seeds, stats
from medrobust.experiments.tasks.curves import fresh
from medrobust.experiments.work import Work
from medrobust.results import Kind
from medrobust.search import OPTIMISERS, Box, minimise
from medrobust.store import Result

HALF_WIDTH = 5.12


def sphere(x: Tensor) -> Tensor:
    """Sum of squares, (…, D) to (…): one optimum, 0 at 0."""
    return (x**2).sum(-1)


def rastrigin(x: Tensor) -> Tensor:
    """Many local optima around the one at 0, where it is 0."""
    return (x**2 - 10 * torch.cos(2 * math.pi * x) + 10).sum(-1)


FUNCTIONS = {"sphere": sphere, "rastrigin": rastrigin}


def minimised(work: Work) -> Result:
    """The best value that one optimiser finds. args: optimiser, function, shifted, dims, budget, seeds (how many).

    shifted: the optimum lies elsewhere for every seed, not at the centre of the box, to which some methods are drawn.
    """
    args = work.args
    numbers, dims = range(args["seeds"]), int(args["dims"])
    shift = seeds.uniform(0, "search/shift", numbers, (1, dims)).double() * (HALF_WIDTH / 2 if args["shifted"] else 0)
    function = FUNCTIONS[args["function"]]
    space = Box(-HALF_WIDTH, HALF_WIDTH, dims, torch.float64)
    minimised = minimise(
        OPTIMISERS[args["optimiser"]](), lambda x: function(x - shift), space, list(numbers), args["budget"]
    )
    rows = fresh("")
    best = stats.median(minimised.best_f.numpy())
    rows.add(Kind.SEARCH, "objective", best, evaluations=minimised.evaluations)
    return {"rows": rows.plain()}, {"best": minimised.best_f.numpy()}
