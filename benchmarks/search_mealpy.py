"""mealpy's side of search.py, for an interpreter of its own (mealpy 3.0.3 wants numpy 1.26): not run by hand.

    python search_mealpy.py DATA.npz NAME EVALUATIONS SEED

The perceptron as mealpy's user would write it: a numpy function of one weight vector. Prints as JSON how often that
function was really called, the seconds of ``solve`` from end to end, and the best value.
"""

from __future__ import annotations

import json
import math
import sys
import time

import numpy as np
from mealpy import ABC, BBO, CRO, DE, FFA, GA, GWO, PSO, TLO, WOA, FloatVar  # noqa: F401

MODELS = {
    "pso": PSO.OriginalPSO,
    "gwo": GWO.OriginalGWO,
    "de": DE.OriginalDE,
    "ga": GA.BaseGA,
    "fa": FFA.OriginalFFA,
    "abc": ABC.OriginalABC,
    "woa": WOA.OriginalWOA,
    "tlbo": TLO.OriginalTLO,
}
POPULATION, BOUND = 64, 3.0


def main() -> None:
    data, name, evaluations, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    with np.load(data) as saved:
        X, y = saved["X"], saved["y"]
    features, hidden = X.shape[1], 16
    rows, calls = np.arange(len(y)), 0

    def loss(w: np.ndarray) -> float:
        nonlocal calls
        calls += 1
        cut = features * hidden
        W1, b1 = w[:cut].reshape(features, hidden), w[cut : cut + hidden]
        W2, b2 = w[cut + hidden : -2].reshape(hidden, 2), w[-2:]
        z = np.tanh(X @ W1 + b1) @ W2 + b2
        z = z - z.max(axis=1, keepdims=True)
        return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[rows, y]))

    dims = features * hidden + hidden + hidden * 2 + 2
    problem = {
        "obj_func": loss,
        "bounds": FloatVar(lb=[-BOUND] * dims, ub=[BOUND] * dims),
        "minmax": "min",
        "log_to": None,
    }
    # the evaluations of one epoch differ from method to method, so the epochs are set from what they really take
    each = {"fa": POPULATION * (POPULATION - 1) / 2, "abc": 2 * POPULATION, "tlbo": 2 * POPULATION}.get(
        name, POPULATION
    )
    model = MODELS[name](epoch=max(1, math.ceil(evaluations / each)), pop_size=POPULATION)
    begun = time.perf_counter()
    best = model.solve(problem, seed=seed)
    seconds = time.perf_counter() - begun
    print(json.dumps({"calls": calls, "seconds": seconds, "best": best.target.fitness}))


if __name__ == "__main__":
    main()
