"""Does the memory that a universal perturbation takes grow with the number of images it is made from?

    python benchmarks/universal_memory.py MODEL [--images 1000 10000] [--methods sga sgd df] [--noise]

MODEL is a folder saved by medrobust; the images are phantoms of its size, or with --noise pure noise, which is drawn
sooner, both when they are read. Each method makes one pass over all of them, nontargeted, p = 2, at a norm of 4 % of
the images', in a process of its own; the table has the largest resident memory of that process, and of one that makes
it from 64 images.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time

import medrobust as mr
from medrobust.images import Lazy
from medrobust.universal import UNIVERSAL

FEW = 64
"""Images of the run that the others are held against: torch, the network and one batch."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--methods", nargs="+", default=["sga", "sgd", "df"])
    parser.add_argument("--noise", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        make(options.model, options.one[0], int(options.one[1]), options.noise)
        return
    print("| method | images | gradients | seconds | largest memory, MiB | goal reached while it was made |")
    print("|---|---|---|---|---|---|", flush=True)
    for name in options.methods:
        for n in (FEW, *options.images):
            more = ["--noise"] if options.noise else []
            subprocess.run([sys.executable, __file__, options.model, "--one", name, str(n), *more], check=True)


def make(model: str, name: str, n: int, noise: bool) -> None:
    clf = mr.Classifier.load(model)
    size, channels = int(clf.size or clf.provenance.get("size", 28)), clf.channels or 1
    images: Lazy
    if noise:
        images = mr.universal.Noise(n, (channels, size, size))
        few: Lazy = mr.universal.Noise(FEW, (channels, size, size))
    else:
        images = mr.data.load(f"phantom:chest@{size}:n={n}", channels=channels)
        few = images.sample(FEW, 0)
    ball = mr.L2.relative(0.04, few)
    method = UNIVERSAL[name](passes=1)  # type: ignore[call-arg]
    begin = time.perf_counter()
    v = method(clf, images, mr.Untargeted(), ball)
    spent, top = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    cells = (
        method.title,
        f"{n:,}",
        f"{v.provenance['gradients']:,}",
        f"{spent:.0f}",
        f"{top:.0f}",
        f"{v.history[-1]['rate']:.1%}",
    )
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
