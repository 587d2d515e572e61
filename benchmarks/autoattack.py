"""`auto` beside AutoAttack standard (Croce & Hein 2020) on the same images: what each breaks alone, and what it costs.

    python benchmarks/autoattack.py MODEL DATA [--name NAME] [--norm linf] [--eps 4 …] [--n 200] [--seeds 5]
        [--square QUERIES] [--out CSV]

MODEL is a folder saved by medrobust, or the name of an architecture whose --weights FILE is given; DATA a data spec;
eps in grey levels (linf) or as a length (l2). --square: instead, Square alone on both sides with so many queries.
Needs `pyautoattack`, the published code as a package. With two classes its standard version stops with an error (the
DLR loss needs a third class): then its parts that do not need one run, APGD on the cross-entropy, FAB and Square, at
their standard budgets. Images are the first n that the network reads correctly; both sides are judged by medrobust.
Prints, and appends to CSV, two lines a size. Seconds are CPU seconds of this process. What AutoAttack has finished is
kept in OUT.parts, a file a seed, so that a second call goes on and `auto` can be measured anew beside it.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import medrobust as mr
from blackbox import loaded
from counting import Counted
from medrobust import stats

COLUMNS = (
    "set",
    "norm, eps",
    "n",
    "side",
    "seeds",
    "robust accuracy, first seed (95 %)",
    "over the seeds",
    "broken by it alone",
    "CPU seconds a run",
    "gradient rows an image",
)

Attack = Callable[[Counted, mr.Classifier, Tensor, Tensor, mr.threat.Ball, int], Tensor]
Sides = dict[str, tuple[Attack, range]]
"""By its name each side's attack, and the seeds that it runs with."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--norm", choices=["linf", "l2"], default="linf")
    parser.add_argument("--eps", type=float, nargs="+", default=[4.0])
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--square", type=int)
    parser.add_argument("--weights")
    parser.add_argument("--name", help="of the set in the table")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clf, name, x, y = loaded(options)
    print(f"{name}, {tuple(x.shape[1:])}, {len(clf.classes)} classes, {torch.get_num_threads()} threads")
    for eps in options.eps:
        size = eps / 255 if options.norm == "linf" else eps
        ball = {"linf": mr.Linf, "l2": mr.L2}[options.norm](size)
        seeds = range(options.seeds)
        sides: Sides = {"auto": (auto, range(1)), "AutoAttack": (autoattack, seeds)}
        if options.square:
            sides = {
                "Square, medrobust": (square(options.square), seeds),
                "Square, AutoAttack": (square_autoattack(options.square), seeds),
            }
        where = f"Linf {eps:g}/255" if options.norm == "linf" else f"L2 {eps:g}"
        rows = compared(clf, x, y, ball, [options.name or name, where], sides, options.out)
        for row in rows:
            print(*row, sep=" | ", flush=True)
        if options.out:
            new = not options.out.exists()
            with options.out.open("a", newline="", encoding="utf-8") as stream:
                csv.writer(stream, lineterminator="\n").writerows([COLUMNS, *rows] if new else rows)


def compared(
    clf: mr.Classifier, x: Tensor, y: Tensor, ball: mr.threat.Ball, where: list[str], sides: Sides, out: Path | None
) -> list[list[object]]:
    """A row of the table for each side."""
    broken: dict[str, np.ndarray] = {}
    rows: dict[str, list[object]] = {}
    for side, (attack, seeds) in sides.items():
        net, goal = Counted(clf), mr.Untargeted(y)
        attack(net, clf, x[:1], y[:1], type(ball)(1.0), 0)  # what is imported and tried out once

        def measured(seed: int, attack: Attack = attack, net: Counted = net, goal: mr.Goal = goal) -> Run:
            net.count.rows = 0
            begin = time.process_time()
            attacked = attack(net, clf, x, y, ball, seed)
            reached = mr.judge(clf, x, attacked.float(), goal, ball).reached
            return Run(reached.numpy(), time.process_time() - begin, net.count.rows)

        kept = out.with_suffix(".parts") / "-".join((*where, str(len(x)), side)).replace("/", "_") if out else None
        runs = [at(kept if side == "AutoAttack" else None, seed, measured) for seed in seeds]
        accuracy = [1 - float(run.reached.mean()) for run in runs]
        first = stats.proportion(~runs[0].reached)
        broken[side] = np.any([run.reached for run in runs], axis=0)
        rows[side] = [
            *(*where, len(x), side, len(seeds)),
            f"{first.value:.1%} ({first.low:.1%} to {first.high:.1%})",
            f"{min(accuracy):.1%} to {max(accuracy):.1%}",
            f"{sum(run.seconds for run in runs) / len(runs):.1f}",
            f"{sum(run.rows for run in runs) / len(x) / len(runs):.0f}",
        ]
    for side, row in rows.items():
        other = next(s for s in sides if s != side)
        row.insert(-2, int((broken[side] & ~broken[other]).sum()))
    return list(rows.values())


class Run(NamedTuple):
    """Which images one run broke, (n,) bool; its CPU seconds; gradient rows in all."""

    reached: np.ndarray
    seconds: float
    rows: int


def at(folder: Path | None, seed: int, measured: Callable[[int], Run]) -> Run:
    """The run with the seed: from its file in the folder where it is there already."""
    file = folder / f"{seed}.npz" if folder else None
    if file and file.exists():
        kept = np.load(file)
        return Run(kept["reached"], float(kept["seconds"]), int(kept["rows"]))
    run = measured(seed)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **run._asdict())
    print(f"seed {seed}: {1 - run.reached.mean():.1%} hold, {run.seconds:.0f} s", flush=True)
    return run


def auto(net: Counted, clf: mr.Classifier, x: Tensor, y: Tensor, ball: mr.threat.Ball, seed: int) -> Tensor:
    counted = mr.Classifier(net, clf.classes, channels=x.shape[1])
    return mr.attacks.Auto()(counted, x, mr.Untargeted(y), ball, seed=seed)


def autoattack(net: Counted, clf: mr.Classifier, x: Tensor, y: Tensor, ball: mr.threat.Ball, seed: int) -> Tensor:
    from pyautoattack import AutoAttack

    norm = {"linf": "Linf", "l2": "L2"}[ball.name]
    most = len(clf.classes) - 1
    version = "standard" if most > 1 else "custom"
    attack = AutoAttack(net, norm=norm, eps=float(ball.eps), version=version, seed=seed, device="cpu")
    if version == "custom":
        attack.attacks_to_run = ["apgd-ce", "fab", "square"]
        attack.apgd.n_restarts = attack.fab.n_restarts = 1
    attack.apgd_targeted.n_target_classes = min(attack.apgd_targeted.n_target_classes, most)
    attack.fab.n_target_classes = min(attack.fab.n_target_classes, most)
    attacked, _ = attack.run_standard_evaluation(x, y, batch_size=clf.batch_size(x.shape))
    return attacked


def square(queries: int) -> Attack:
    def attack(net: Counted, clf: mr.Classifier, x: Tensor, y: Tensor, ball: mr.threat.Ball, seed: int) -> Tensor:
        counted = mr.Classifier(net, clf.classes, channels=x.shape[1])
        return mr.attacks.Square(queries)(counted, x, mr.Untargeted(y), ball, seed=seed)

    return attack


def square_autoattack(queries: int) -> Attack:
    def attack(net: Counted, _: mr.Classifier, x: Tensor, y: Tensor, ball: mr.threat.Ball, seed: int) -> Tensor:
        from pyautoattack.square import SquareAttack

        norm, options = {"linf": "Linf", "l2": "L2"}[ball.name], {"p_init": 0.8, "resc_schedule": False}
        # its start is a query that it does not count
        peer = SquareAttack(
            net, norm=norm, n_queries=queries - 1, eps=float(ball.eps), seed=seed, device="cpu", **options
        )
        return peer.perturb(x, y)

    return attack


if __name__ == "__main__":
    main()
