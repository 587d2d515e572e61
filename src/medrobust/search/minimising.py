"""Run an optimiser on a function of whole populations and keep what it found after every evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.search.box import Box
from medrobust.search.draws import Seed
from medrobust.search.optimiser import Optimiser, SearchRun


@dataclass
class Result:
    """The result of a search.

    best_x (S, D), best_f (S,): the best point of each seed and its value.
    best: best_x decoded (a dictionary for a Space).
    history (S, evaluations): the best value after each evaluation.
    evaluations: spent per seed. totals, seconds: evaluations and seconds of all seeds together after each step.
    """

    best_x: Tensor
    best_f: Tensor
    best: Any
    history: Tensor
    evaluations: int
    totals: list[int]
    seconds: list[float]


class StoppedError(InputError):
    """The function could not be used any further; ``result`` holds what was found before."""

    result: Result


def minimise(
    optimiser: Optimiser,
    function: Callable[[Any], Tensor],
    space: Box,
    seeds: Sequence[Seed],
    budget: int,
    device: torch.device | str | None = None,
    start: Tensor | None = None,
    nan: str = "refuse",
) -> Result:
    """Minimise ``function``, which values a whole population: (S, P, D) -> (S, P), or what ``space`` decodes them to.

    Where the optimiser wants gradients, autograd takes them through ``function``. Raises StoppedError, an InputError
    that carries the result so far, at NaN (see Optimiser.start).
    """
    run = optimiser.start(space, seeds, budget, device, start, nan)
    values: list[Tensor] = []
    totals: list[int] = []
    seconds: list[float] = []
    begun = time.perf_counter()
    while not run.done:
        try:
            before = run.evaluations
            f = _step(run, function)
        except InputError as error:
            stopped = StoppedError(str(error))
            stopped.result = _result(run, values, totals, seconds)
            raise stopped from error
        cost = (run.evaluations - before) // f.shape[1]
        values.append(f.repeat_interleave(cost, 1) if cost > 1 else f)
        totals.append(run.evaluations)
        seconds.append(time.perf_counter() - begun)
    return _result(run, values, totals, seconds)


def _step(run: SearchRun, function: Callable[[Any], Tensor]) -> Tensor:
    x = run.ask()
    if run.needs_gradient:
        x = x.detach().requires_grad_()
        f = function(run.space.decode(x))
        (gradient,) = torch.autograd.grad(f.sum(), x)
        run.tell(f, gradient)
    else:
        with torch.no_grad():
            f = function(run.space.decode(x))
        run.tell(f)
    return f.detach().double().nan_to_num(torch.inf, torch.inf, -torch.inf)


def _result(run: SearchRun, values: list[Tensor], totals: list[int], seconds: list[float]) -> Result:
    worth = torch.cat(values, 1) if values else torch.empty(run.rows, 0, dtype=torch.float64)
    return Result(
        run.best_x,
        run.best_f,
        run.space.decode(run.best_x),
        worth.cummin(1).values if values else worth,
        run.evaluations,
        totals,
        seconds,
    )
