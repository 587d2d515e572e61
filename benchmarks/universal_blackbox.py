"""Universal perturbations by queries alone: fooling of held-out images against queries, beside random perturbations.

    python benchmarks/universal_blackbox.py MODEL DATA [--label COLUMN] [--norm l2|linf] [--zeta 0.04] [--target K]
        [--n 200] [--held 200] [--queries 2000 5000 10000] [--seeds 1]

MODEL is a folder saved by medrobust, DATA a data spec. Made on training images, judged on test images. A query is a
forward pass of one image. U-SimBA is shown with the published length of a step and with longer ones, since with few
queries the published one does not reach the edge of the ball; its best is what counts. Prints, for each method and
budget, the share of held-out images whose decision changes (with a target: that get the target), n and 95 % interval.
"""

from __future__ import annotations

import argparse
import time

import medrobust as mr
from medrobust import stats
from medrobust.universal import TileSearch, USimBA

METHODS = {
    "U-SimBA, as published": lambda queries: USimBA(queries),
    "U-SimBA, 5 x longer steps": lambda queries: USimBA(queries, step=0.2),
    "U-SimBA, 5 x longer steps, 8 frequencies": lambda queries: USimBA(queries, step=0.2, frequencies=8),
    "tile search": lambda queries: TileSearch(queries),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--label", default="label")
    parser.add_argument("--norm", choices=["l2", "linf"], default="l2")
    parser.add_argument("--zeta", type=float, default=0.04)
    parser.add_argument("--target", type=int)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--held", type=int, default=200)
    parser.add_argument("--queries", type=int, nargs="+", default=[2000, 5000, 10_000])
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()

    clf = mr.Classifier.load(given.model)
    data = mr.data.load(given.data, size=clf.size or clf.provenance.get("size"), label=given.label)
    made, _ = data.split("train").tensors(limit=given.n)
    held, _ = data.split("test").tensors(limit=given.held)
    ball = {"l2": mr.L2, "linf": mr.Linf}[given.norm].relative(given.zeta, made)
    goal = mr.Untargeted() if given.target is None else mr.Targeted(given.target)
    clean = clf.predict(held)

    def rate(v: mr.universal.Universal) -> stats.Estimate:
        after = clf.predict(v.apply(held))
        return stats.proportion((after != clean if given.target is None else after == given.target).numpy())

    print(f"{data}\n{ball}, {goal.__class__.__name__.lower()}, made on {len(made)}, judged on {len(held)}")
    base = "nothing changed" if given.target is None else "the target before"
    started = clean != clean if given.target is None else clean == given.target
    print(f"{base}: {told(stats.proportion(started.numpy()))}")
    for v in mr.universal.controls(clf, made, ball):
        print(f"{v.provenance['method']:<42} {'0':>7} queries  {told(rate(v))}")
    for name, make in METHODS.items():
        for queries in given.queries:
            for seed in range(given.seeds):
                start = time.perf_counter()
                v = make(queries)(clf, made, goal, ball, seed=seed)
                spent = time.perf_counter() - start
                asked = v.provenance["queries"]
                print(f"{name:<42} {asked:>7} queries  {told(rate(v))}  seed {seed}  {spent:.0f} s", flush=True)


def told(estimate: stats.Estimate) -> str:
    return f"{estimate.value:.3f} [{estimate.low:.3f}, {estimate.high:.3f}] n={estimate.n}"


if __name__ == "__main__":
    main()
