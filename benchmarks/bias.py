"""Which optimisers gather at the origin of the coordinates, whatever the function is?

    python benchmarks/bias.py [--seeds 20] [--budget 6000] [--function Rastrigin]

Sphere and Rastrigin in 10 dimensions, float64, each optimiser as it comes. Three places of the optimum:

    at 0:     the box is [-5, 5], the optimum its centre and the origin
    moved:    the box is [5, 15], the optimum its centre 10: the same problem with other coordinates
    shifted:  the box is [-5, 5], the optimum a random point within [-4, 4], another one for each seed

"at 0" against "moved" shows a bias to the origin alone: an optimiser that knows no origin finds the same. "Biased" is
said where the medians differ tenfold and a two-sided Mann-Whitney test gives p < 0.001; values below 1e-15 count as
1e-15, for there rounding decides. "shifted" is what a user meets; the last column is random search's median over it.
Medians with 95 % intervals from order statistics.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

from medrobust import search, seeds, stats

DIMS, FLOOR = 10, 1e-15


def sphere(z: Tensor) -> Tensor:
    return (z * z).sum(-1)


def rastrigin(z: Tensor) -> Tensor:
    return (z * z - 10 * (2 * torch.pi * z).cos() + 10).sum(-1)


def found(make: type[search.Optimiser], function, low: float, optimum: Tensor, n: int, budget: int) -> np.ndarray:  # type: ignore[no-untyped-def]
    """(n,): the best value of each seed; optimum (n, DIMS)."""
    box = search.Box(low, low + 10, DIMS, torch.float64)
    result = search.minimise(make(), lambda x: function(x - optimum[:, None]), box, range(n), budget)
    return result.best_f.clamp(min=FLOOR).numpy()


def written(values: np.ndarray) -> str:
    e = stats.median(values)
    return f"{e.value:.1e} ({e.low:.0e} to {e.high:.0e})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--budget", type=int, default=6000)
    parser.add_argument("--function", choices=("Sphere", "Rastrigin"), help="only this one")
    parser.add_argument("--only", help="names of optimisers, separated by commas; random is always there")
    options = parser.parse_args()
    torch.set_num_threads(1)
    n = options.seeds
    zero, ten = torch.zeros(n, DIMS, dtype=torch.float64), torch.full((n, DIMS), 10.0, dtype=torch.float64)
    random = 4 * seeds.uniform(0, "the optimum", range(n), (DIMS,)).double()
    for name, function in (("Sphere", sphere), ("Rastrigin", rastrigin)):
        if options.function not in (None, name):
            continue
        print(f"\n{name}, n = {n} seeds, {options.budget} evaluations\n")
        print("| optimiser | at 0 | moved | biased to the origin? | shifted | better than random search by |")
        print("|---|---|---|---|---|---|")
        chance = 0.0
        for key, make in search.OPTIMISERS.items():
            if options.only and key not in ("random", *options.only.split(",")):
                continue
            a, b = (found(make, function, low, at, n, options.budget) for low, at in ((-5.0, zero), (5.0, ten)))
            c = found(make, function, -5.0, random, n, options.budget)
            chance = chance or float(np.median(c))
            ratio = float(np.median(b) / np.median(a))
            biased = max(ratio, 1 / ratio) >= 10 and mannwhitneyu(a, b).pvalue < 1e-3
            said = f"yes, {ratio:.0e}" if biased else "no"
            gain = f"{chance / np.median(c):.3g} x"
            print(f"| {key} | {written(a)} | {written(b)} | {said} | {written(c)} | {gain} |", flush=True)


if __name__ == "__main__":
    main()
