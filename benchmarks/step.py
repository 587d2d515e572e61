"""One step of PGD against a bare forward and input-gradient loop on the same network: what the engine costs.

    python benchmarks/step.py MODEL DATA [--rounds 9]

MODEL is a folder saved by medrobust, DATA a data spec. "as it is": PGD on the classifier's own network, at an eps too
small for any success, so that every image makes every step. "fast": on Classifier.fast, the copy with BatchNorm folded.
"plain allocator": the bare loop before medrobust asks the C library to keep freed memory. The others run in turn; the
smallest time of each counts, the least disturbed one.
"""

from __future__ import annotations

import argparse
import time

import torch

import medrobust as mr
from counting import images_for
from medrobust import classifier as classifier_module
from medrobust import devices
from medrobust.attacks.engine import run

STEPS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    keep, classifier_module.devices.keep_memory = devices.keep_memory, lambda: False
    clf = mr.Classifier.load(options.model)
    batch_size = clf.batch_size((1, 1, clf.size or 28, clf.size or 28))
    data, x, y = images_for(clf, options.data, 2 * batch_size)
    right = clf.predict(x) == y
    x, y = x[right][:batch_size], y[right][:batch_size]
    fast = clf.fast(x.shape)
    net = clf.net.eval().requires_grad_(False)
    mean, std = torch.tensor(clf.mean).view(1, -1, 1, 1), torch.tensor(clf.std).view(1, -1, 1, 1)

    def bare() -> None:
        now = x.clone()
        for _ in range(STEPS):
            now.requires_grad_()
            loss = torch.nn.functional.cross_entropy(net((now - mean) / std), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, now)
            now = now.detach() + 1e-4 * gradient.sign()

    def attacked(classifier: mr.Classifier) -> None:
        goal, ball = mr.Untargeted(y), mr.Linf(1e-6 / 255)
        run(mr.attacks.PGD(steps=STEPS), classifier, x, goal, ball, fast=False)

    def looks(classifier: mr.Classifier) -> None:
        """The forward passes that a run makes besides its steps: the clean one and the last look."""
        classifier.logits(x)
        classifier.logits(x)

    least: dict[str, float] = {}
    tasks = {
        "bare": bare,
        "as it is": lambda: attacked(clf),
        "fast": lambda: attacked(fast),
        "looks": lambda: looks(clf),
        "fast looks": lambda: looks(fast),
    }
    for _ in range(options.rounds):
        begin = time.perf_counter()
        bare()
        least["plain"] = min(least.get("plain", float("inf")), time.perf_counter() - begin)
    keep()
    for _ in range(options.rounds + 1):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            least[name] = min(least.get(name, float("inf")), time.perf_counter() - begin)
    print(f"{data}, {tuple(x.shape)}, {torch.get_num_threads()} threads, {clf.provenance.get('architecture')}")
    print("\n| loop | ms a step | over the bare loop | over the bare loop, plain allocator |")
    print("|---|---|---|---|")
    for name, key in (("bare loop, plain allocator", "plain"), ("bare loop", "bare")):
        over = f"{least[key] / least['bare']:.2f} | {least[key] / least['plain']:.2f}"
        print(f"| {name} | {least[key] / STEPS * 1e3:.1f} | {over} |")
    for name, other in (("as it is", "looks"), ("fast", "fast looks")):
        step = (least[name] - least[other]) / STEPS
        over = f"{step * STEPS / least['bare']:.2f} | {step * STEPS / least['plain']:.2f}"
        print(f"| PGD, {name} | {step * 1e3:.1f} | {over} |")


if __name__ == "__main__":
    main()
