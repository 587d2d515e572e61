"""Universal perturbations by queries alone: how many does each search need for the same fooling of held-out images?

    python benchmarks/universal_blackbox.py MODEL DATA [--label COLUMN] [--norm l2|linf] [--zeta 0.04] [--target K]
        [--n 100] [--held 300] [--queries 1000 2000 5000 10000 20000] [--simba 250000] [--step 0.2] [--split test]
        [--seed 0] [--search tile:majority_class=false]

MODEL is a folder saved by medrobust, DATA a data spec. Made on n training images, judged on test images (--split val:
for choosing settings). A query is a forward pass of one image. U-SimBA goes on until it does what the tile search
does at its most, or to --simba queries, and is looked at on the way (--simba 0: not at all); --step is the length of
its moves (0.04 as published; with longer ones it reaches the edge of the ball sooner). --seed draws the images and
both searches. --search: the tile search with other settings, as the command line takes them.
Prints the share of held-out images whose decision changes (with a target: that get the target), n and 95 % interval,
of random perturbations, of both searches, and the queries of U-SimBA over those of tile search for the same share.
The network is searched with BatchNorm folded, and judged as it is.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from torch import Tensor

import medrobust as mr
from medrobust import stats
from medrobust.options import parse
from medrobust.universal import TileSearch, Universal, UniversalTask, USimBA

Curve = list[tuple[int, stats.Estimate]]


def simba(
    method: USimBA, task: UniversalTask, judged: Callable[[Tensor], stats.Estimate], seed: int, enough: float
) -> Curve:
    """Held-out share against queries, looked at wherever they have grown by a twentieth, until it is ``enough``."""
    curve: Curve = []
    mark, start = 1000.0, time.process_time()
    for delta, entry in method.path(task, seed):
        queries = int(entry["queries"])
        if queries >= mark or queries + 2 * task.n > method.queries:
            mark = 1.05 * queries
            curve.append((queries, judged(delta)))
            seconds = time.process_time() - start
            print(f"| U-SimBA | {queries:,} | {rate(curve[-1][1])} | {seconds:.0f} |", flush=True)
            if curve[-1][1].value >= enough:
                break
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--label", default="label")
    parser.add_argument("--norm", choices=["l2", "linf"], default="l2")
    parser.add_argument("--zeta", type=float, default=0.04)
    parser.add_argument("--target", type=int)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--held", type=int, default=300)
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 2000, 5000, 10_000, 20_000])
    parser.add_argument("--simba", type=int, default=250_000)
    parser.add_argument("--step", type=float, default=0.2)
    parser.add_argument("--split", choices=["test", "val"], default="test")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--search", default="tile")
    given = parser.parse_args()

    clf = mr.Classifier.load(given.model)
    data = mr.data.load(given.data, size=clf.size or clf.provenance.get("size"), label=given.label)
    made, _ = data.split("train").sample(given.n, given.seed).tensors()
    held, _ = data.split(given.split).sample(given.held, given.seed).tensors()
    ball = {"l2": mr.L2, "linf": mr.Linf}[given.norm].relative(given.zeta, made)
    goal = mr.Untargeted() if given.target is None else mr.Targeted(given.target)
    clean, fast = clf.predict(held), clf.fast(made.shape)

    def judged(delta: Tensor) -> stats.Estimate:
        after = clf.predict(Universal(delta, ball, goal).apply(held))
        return stats.proportion((after != clean if given.target is None else after == given.target).numpy())

    sizes = f"made on {len(made)}, judged on {len(held)}, seed {given.seed}"
    print(f"{data}, {ball}, {type(goal).__name__.lower()}, {sizes}\n")
    print("| search | queries | held out | CPU seconds |\n|---|---|---|---|")
    for v in mr.universal.controls(clf, made, ball, given.seed):
        print(f"| {v.provenance['method']} | 0 | {rate(judged(v.delta))} | |")
    ours: Curve = []
    _, settings = parse(given.search, {"tile": TileSearch}, "method", hidden=("queries",))
    for queries in given.queries:
        start = time.process_time()
        v = TileSearch(queries, **settings)(fast, made, goal, ball, seed=given.seed)
        ours.append((v.provenance["queries"], judged(v.delta)))
        seconds = time.process_time() - start
        print(f"| tile search | {ours[-1][0]:,} | {rate(ours[-1][1])} | {seconds:.0f} |", flush=True)
    if not given.simba:
        return
    with fast.borrowed():
        task = UniversalTask(fast, made, goal, ball, None)
        peer = simba(USimBA(given.simba, step=given.step), task, judged, given.seed, max(e.value for _, e in ours))
    print()
    for queries, share in ours:
        least = next((q for q, e in peer if e.value >= share.value), None)
        most = peer[-1][0]
        reached = f"{least:,}, {least / queries:.1f} times as many" if least else f"not within {most:,}"
        print(f"{share.value:.1%} with {queries:,} queries of tile search; U-SimBA: {reached}")


def rate(e: stats.Estimate) -> str:
    return f"{e.value:.1%} ({e.low:.1%} to {e.high:.1%}), n = {e.n}"


if __name__ == "__main__":
    main()
