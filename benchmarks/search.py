"""Seconds per evaluation of a perceptron trained by search: medrobust against mealpy, from end to end, one thread each.

    python benchmarks/search.py MEALPY_PYTHON [--evaluations 6000] [--rounds 3] [--only pso,gwo]

MEALPY_PYTHON: an interpreter with mealpy 3.0.3 (search_mealpy.py runs there). The task is jindal2022.md's: 398 samples
of scikit-learn's breast-cancer set, 30 features, 16 hidden units, 530 weights within [-3, 3], cross-entropy,
population 64. mealpy's function takes one weight vector, as its user would write it in numpy; ours takes the whole
population as one tensor. Both are the mean cross-entropy of the same network and data. Seconds are divided by the
evaluations that really happened, counted inside the function. The two run in turn, seed after seed; the smallest
time of the rounds counts. medrobust: once with one seed a run, as mealpy does, once with 20 seeds as one tensor.
Beside it the median over the rounds of the smallest cross-entropy found with one seed (mealpy's methods of the same
name differ in their details, and its FA spends more evaluations).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medrobust import search

FEATURES, HIDDEN, POPULATION, BOUND = 30, 16, 64, 3.0
DIMS = FEATURES * HIDDEN + HIDDEN + 2 * HIDDEN + 2
OURS = {
    "random": search.RandomSearch,
    "pso": search.PSO,
    "gwo": search.GWO,
    "de": search.DE,
    "ga": search.GA,
    "fa": search.FA,
    "abc": search.ABC,
    "woa": search.WOA,
    "tlbo": search.TLBO,
}


class Perceptrons:
    """The mean cross-entropy of all perceptrons of a population, (S, P, DIMS) -> (S, P); counts them."""

    def __init__(self, samples: np.ndarray, y: np.ndarray) -> None:
        self.X, self.sign = torch.from_numpy(samples.T.copy()).float(), torch.from_numpy(2 * y - 1).float()
        self.calls = 0

    def __call__(self, w: Tensor) -> Tensor:
        self.calls += w.shape[0] * w.shape[1]
        flat, cut = w.flatten(0, 1), FEATURES * HIDDEN
        W1, b1 = flat[:, :cut].view(-1, HIDDEN, FEATURES), flat[:, cut : cut + HIDDEN, None]
        W2, b2 = flat[:, cut + HIDDEN : -2].view(-1, 2, HIDDEN), flat[:, -2:, None]
        # tanh(a) = 2 sigmoid(2 a) - 1, and torch's sigmoid is six times as fast; of two logits, the difference counts
        half = torch.baddbmm(b1, W1, self.X.expand(len(flat), -1, -1)).mul_(2).sigmoid_()
        out = W2[:, 1:] - W2[:, :1]
        lead = torch.baddbmm(b2[:, 1:] - b2[:, :1] - out.sum(2, keepdim=True), 2 * out, half)[:, 0]
        return torch.nn.functional.softplus(-lead * self.sign).mean(1).view(w.shape[:2])


def ours(function: Perceptrons, name: str, evaluations: int, seeds: list[int]) -> tuple[float, float]:
    """Seconds per evaluation, and the median of the best values."""
    function.calls = 0
    box = search.Box(-BOUND, BOUND, DIMS)
    # ABC's population counts bees, mealpy's counts food sources
    optimiser = OURS[name](population=2 * POPULATION if name == "abc" else POPULATION)
    begun = time.perf_counter()
    result = search.minimise(optimiser, function, box, seeds, evaluations)
    seconds = time.perf_counter() - begun
    assert function.calls == evaluations * len(seeds)
    return seconds / function.calls, float(result.best_f.median())


def theirs(python: str, data: Path, name: str, evaluations: int, seed: int) -> tuple[float, int, float]:
    script = Path(__file__).with_name("search_mealpy.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [python, str(script), str(data), name, str(evaluations), str(seed)],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    return said["seconds"] / said["calls"], said["calls"], said["best"]


def main() -> None:
    from sklearn.datasets import load_breast_cancer
    from sklearn.model_selection import train_test_split

    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("mealpy_python")
    parser.add_argument("--evaluations", type=int, default=6000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(OURS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    X, y = load_breast_cancer(return_X_y=True)
    X, _, y, _ = train_test_split(X, y, train_size=398, random_state=0, stratify=y)
    X = (X - X.mean(0)) / X.std(0)
    function = Perceptrons(X, y)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, X=X, y=y)
        print(
            "| optimiser | mealpy µs (evaluations) | medrobust µs, 1 seed | 20 seeds | times faster: 1 seed, 20 seeds "
            "| best value: mealpy, medrobust |"
        )
        print("|---|---|---|---|---|---|")
        for name in options.only.split(","):
            peer, alone, batch, calls, found = [], [], [], 0, ([], [])
            for seed in range(options.rounds):
                if name != "random":  # mealpy has none
                    cost, calls, value = theirs(options.mealpy_python, data, name, options.evaluations, seed)
                    peer.append(cost)
                    found[0].append(value)
                cost, value = ours(function, name, options.evaluations, [seed])
                alone.append(cost)
                found[1].append(value)
                batch.append(ours(function, name, options.evaluations // 4, list(range(20)))[0])
            b, c, reached = min(alone), min(batch), f"{statistics.median(found[1]):.3f}"
            if peer:
                a = min(peer)
                shown = f"{a * 1e6:.0f} ({calls})", f"{a / b:.1f}, {a / c:.1f}"
                reached = f"{statistics.median(found[0]):.3f}, {reached}"
            else:
                shown = "", ""
            print(f"| {name} | {shown[0]} | {b * 1e6:.0f} | {c * 1e6:.0f} | {shown[1]} | {reached} |", flush=True)


if __name__ == "__main__":
    main()
