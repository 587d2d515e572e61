"""Differential evolution beside scipy's and CMA-ES beside pycma's: same population, budget and starts' distribution.

    python benchmarks/optimisers.py [--seeds 20]

Sphere, Rastrigin and Rosenbrock in 10 dimensions, the optimum a random point of the box [-5, 5] (one for all), float64.
DE: rand/1/bin, population 30, F = 0.5, CR = 0.9, whole generations, no polishing. CMA-ES: population 10, first standard
deviation 0.2 of the width, from the same starts; bounds by folding here, by pycma's own transform there. Medians of the
best value over the seeds with 95 % intervals from order statistics, the range, and a two-sided Mann-Whitney test.
"Agree": each median lies within the range of the other's seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
from scipy.optimize import differential_evolution
from scipy.stats import mannwhitneyu
from torch import Tensor

from medrobust import search, seeds, stats

DIMS = 10
BOX = search.Box(-5.0, 5.0, DIMS, torch.float64)
SHIFT = 3 * seeds.uniform(0, "the optimum", [0], (DIMS,))[0].double()
Function = Callable[[Tensor], Tensor]


def sphere(x: Tensor) -> Tensor:
    return ((x - SHIFT) ** 2).sum(-1)


def rastrigin(x: Tensor) -> Tensor:
    z = x - SHIFT
    return (z * z - 10 * (2 * torch.pi * z).cos() + 10).sum(-1)


def rosenbrock(x: Tensor) -> Tensor:
    z = x - SHIFT + 1
    return (100 * (z[..., 1:] - z[..., :-1] ** 2) ** 2 + (1 - z[..., :-1]) ** 2).sum(-1)


def one(function: Function) -> Callable[[np.ndarray], float]:
    return lambda x: float(function(torch.from_numpy(np.ascontiguousarray(x))))


def de(function: Function, n: int, budget: int) -> tuple[np.ndarray, np.ndarray]:
    ours = search.minimise(search.DE(30), function, BOX, range(n), budget).best_f.numpy()
    theirs = []
    for seed in range(n):
        result = differential_evolution(
            one(function),
            [(-5, 5)] * DIMS,
            strategy="rand1bin",
            popsize=3,
            maxiter=budget // 30 - 1,
            mutation=0.5,
            recombination=0.9,
            polish=False,
            init="random",
            tol=0,
            atol=0,
            seed=seed,
            updating="deferred",
        )
        assert result.nfev == budget
        theirs.append(result.fun)
    return ours, np.array(theirs)


def cma_es(function: Function, n: int, budget: int) -> tuple[np.ndarray, np.ndarray]:
    import cma

    start = 4 * seeds.uniform(0, "the start", range(n), (DIMS,)).double()
    # the first evaluation is the start's own
    ours = search.minimise(search.CMAES(10, sigma=0.2), function, BOX, range(n), budget + 1, start=start).best_f.numpy()
    theirs = []
    for seed in range(n):
        options = {"seed": seed + 1, "popsize": 10, "verbose": -9, "bounds": [-5, 5]}
        strategy = cma.CMAEvolutionStrategy(start[seed].numpy(), 2.0, options)
        for _ in range(budget // 10):
            points = strategy.ask()
            strategy.tell(points, [one(function)(x) for x in points])
        assert strategy.result.evaluations == budget
        theirs.append(strategy.result.fbest)
    return ours, np.array(theirs)


def written(values: np.ndarray) -> str:
    e = stats.median(values)
    return f"{e.value:.2g} ({e.low:.1g} to {e.high:.1g}) | {values.min():.1g} to {values.max():.1g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=20)
    n = parser.parse_args().seeds
    torch.set_num_threads(1)
    print(
        "| optimiser | function | evaluations | ours: median (95 %) | range | peer: median (95 %) | range | p | agree |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for title, both, budgets in (
        ("DE, scipy", de, (9000, 18000, 18000)),
        ("CMA-ES, pycma", cma_es, (2000, 6000, 4000)),
    ):
        for function, budget in zip((sphere, rastrigin, rosenbrock), budgets, strict=True):
            ours, theirs = both(function, n, budget)
            a, b = np.median(ours), np.median(theirs)
            agree = theirs.min() <= a <= theirs.max() and ours.min() <= b <= ours.max()
            p = mannwhitneyu(ours, theirs).pvalue
            row = (
                title,
                function.__name__,
                str(budget),
                written(ours),
                written(theirs),
                f"{p:.2g}",
                "yes" if agree else "no",
            )
            print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
