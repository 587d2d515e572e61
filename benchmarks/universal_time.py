"""Time of a universal perturbation: medrobust beside a plain loop of 30 lines, to the same rate on held-out images.

    python benchmarks/universal_time.py MODEL DATA [--name NAME] [--size 64] [--norms linf l2] [--eps 6/255 1.0]
        [--targets none 0] [--method sgd] [--passes 10] [--n 300] [--held-out 500] [--seeds 5] [--out CSV]

Arguments and the loop are those of universal_plain.py. Both sides run with 1, 2, 3, 5 and --passes passes over the same
images, in turn, one thread. The rate to reach is the loop's with all passes; each side's time is that of its fewest
passes that reach it to half a point (both may peek at the held-out images for that, which favours neither). Where ours
never reaches it, the ratio is 0. Prints, and appends to CSV, the CPU seconds of both, their ratio (median, least and
most of the seeds), and rates and seconds with all passes.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from torch import Tensor

import medrobust as mr
from universal_plain import arguments, classifier, images, method, plain

SLACK = 0.005
COLUMNS = (
    "network",
    "norm",
    "goal",
    "seeds",
    "loop: rate",
    "medrobust: rate",
    "loop: s",
    "medrobust: s",
    "loop: s to the rate",
    "medrobust: s to the rate",
    "ratio (least to most)",
)


Run = tuple[float, float]
"""Rate on held-out images, and CPU seconds."""


def timed(made: Callable[[int], Tensor], passes: list[int], rate: Callable[[Tensor], float]) -> list[Run]:
    """A run with each number of passes."""
    found = []
    for count in passes:
        begin = time.process_time()
        delta = made(count)
        seconds = time.process_time() - begin
        found.append((rate(delta), seconds))
    return found


def first(runs: list[Run], goal: float) -> float:
    """Seconds of the fewest passes that reach the rate; NaN where none does."""
    return next((seconds for rate, seconds in runs if rate >= goal - SLACK), float("nan"))


def of_one_seed(
    clf: mr.Classifier,
    data: mr.data.Dataset,
    options: argparse.Namespace,
    ball: mr.Linf | mr.L2,
    target: int | None,
    passes: list[int],
    seed: int,
) -> tuple[list[Run], list[Run]]:
    """The runs of the loop and ours."""
    x, held = images(data, options.n, options.held_out, seed)
    clean = clf.predict(held).numpy()
    goal = mr.Untargeted() if target is None else mr.Targeted(target)

    def rate(delta: Tensor) -> float:
        outcome = mr.universal.judge(clf, held, mr.universal.Universal(delta, ball, goal, {}), clean=clean)
        return (outcome.targeted_success or outcome.fooling_rate).value

    def loop(count: int) -> Tensor:
        return plain(clf, x, target, ball, count, seed)

    def medrobust(count: int) -> Tensor:
        return method(options.method, count)(clf, x, goal, ball, seed=seed).delta

    if not seed:  # what is found out once about a network (batch shapes, folding) is no part of a run
        loop(1)
        medrobust(1)
    return timed(loop, passes, rate), timed(medrobust, passes, rate)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--method", default="sgd")
    options = parser.parse_args()

    data = mr.data.load(options.data, size=options.size)
    clf = classifier(options.model, data)
    passes = sorted({1, 2, 3, 5, options.passes})
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for norm, size in zip(options.norms, options.eps, strict=True):
        above, _, below = size.partition("/")
        ball = {"linf": mr.Linf, "l2": mr.L2}[norm](float(above) / float(below or 1))
        for target in options.targets:
            aim = None if target == "none" else int(target)
            sides = [of_one_seed(clf, data, options, ball, aim, passes, seed) for seed in range(options.seeds)]
            of_loop, of_medrobust = (list(runs) for runs in zip(*sides, strict=True))
            write(
                [
                    options.name or options.model,
                    f"{norm} {size}",
                    "nontargeted" if aim is None else f"to {clf.classes[aim]}",
                    str(options.seeds),
                    *cells(of_loop, of_medrobust),
                ],
                options.out,
            )


def cells(loop: list[list[Run]], medrobust: list[list[Run]]) -> list[str]:
    """Mean rates and seconds of both with all passes, their seconds to the loop's last rate, and the ratio of these."""
    goals = [runs[-1][0] for runs in loop]
    seconds = [[first(runs, goal) for runs, goal in zip(side, goals, strict=True)] for side in (loop, medrobust)]
    ratios = np.nan_to_num(np.array(seconds[0]) / np.array(seconds[1]), nan=0.0)
    rates = [f"{np.mean([runs[-1][0] for runs in side]):.1%}" for side in (loop, medrobust)]
    whole = [f"{np.mean([runs[-1][1] for runs in side]):.2f}" for side in (loop, medrobust)]
    to_goal = [f"{np.mean(side):.2f}" for side in seconds]
    return [*rates, *whole, *to_goal, f"{np.median(ratios):.1f} ({ratios.min():.1f} to {ratios.max():.1f})"]


def write(row: list[str], out: Path | None) -> None:
    print("| " + " | ".join(row) + " |", flush=True)
    if out is not None:
        new = not out.exists()
        with out.open("a", newline="", encoding="utf-8") as opened:
            csv.writer(opened, lineterminator="\n").writerows([COLUMNS, row] if new else [row])


if __name__ == "__main__":
    main()
