"""How time and memory grow with the number of images: phantoms, attacked shard by shard as the audit does.

    python benchmarks/growth.py [1000 10000 100000]

Each number of images runs in a process of its own: a small CNN at 28 px (trained for a few seconds), PGD with 10 steps
at 2/255, shards of 256. Prints CPU seconds (which other processes do not disturb) and the largest resident memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time

import medrobust as mr
from medrobust.experiments.context import SHARD


def measure(n: int, model: str) -> None:
    data = mr.data.load(f"phantom:chest@28:n={n}")
    clf = mr.Classifier.load(model)
    attack = mr.attacks.PGD(steps=10)
    begin, fooled, making = time.process_time(), 0, 0.0
    for first in range(0, len(data), SHARD):
        start = time.process_time()
        shard = data.select(range(first, min(first + SHARD, len(data))))
        images, labels = shard.tensors()
        making += time.process_time() - start
        goal = mr.Untargeted(labels)
        adv = attack(clf, images, goal, mr.Linf(2 / 255), ids=shard.ids)
        fooled += int(mr.judge(clf, images, adv, goal, mr.Linf(2 / 255)).reached.sum())
    seconds = time.process_time() - begin
    top = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"| {n:,} | {seconds:.1f} | {making:.1f} | {(seconds - making) / n * 1e3:.2f} | {top:.0f} | {fooled:,} |",
        flush=True,
    )


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        measure(int(sys.argv[2]), sys.argv[3])
        return
    print("| images | CPU seconds | of them drawing phantoms | ms an image, attack and judge | memory, MiB | fooled |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        mr.training.fit(mr.data.load("phantom:chest@28:n=1500"), model="small_cnn", epochs=6).save(folder)
        for n in sys.argv[1:] or ("1000", "10000", "100000"):
            subprocess.run([sys.executable, __file__, "--one", n, folder], check=True)


if __name__ == "__main__":
    main()
