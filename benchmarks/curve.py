"""Accuracy against epsilon with PGD-20 on the grid of Ma et al. 2020: medrobust and its peers, in turn, one process.

    python benchmarks/curve.py MODEL DATA [--n 64] [--peers torchattacks foolbox ART]

MODEL is a folder saved by medrobust, DATA a data spec; needs the extra `peers`. The same network, images, steps
(20 of eps/10, random start in the ball) and epsilons (0.1 to 1.0 and 2 to 10 grey levels) for everyone; every library
gets batches of the same size. Prints wall time, gradient evaluations an image (counted inside the network) and the
accuracy that each reaches, so that one can see whether the work is the same.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import medrobust as mr
from counting import Counted, images_for
from medrobust import stats
from medrobust.experiments.config import GRID

STEPS, STEP = 20, 0.1


def ours(net: Counted, clf: mr.Classifier, x: Tensor, y: Tensor, batch: int) -> list[float]:
    counted = mr.Classifier(net, clf.classes, channels=x.shape[1], batch_size=batch)
    curve = mr.attacks.sweep(mr.attacks.PGD(steps=STEPS), counted, x, mr.Untargeted(y), mr.Linf, GRID)
    return [a.value for a in curve.accuracy]


def each_eps(attack: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., list[float]]:
    """A peer attacks every image at every eps; what broke at an eps counts as broken above it, as for us."""

    def curve(net: Counted, _: mr.Classifier, x: Tensor, y: Tensor, batch: int) -> list[float]:
        held, out = torch.ones(len(x), dtype=torch.bool), []
        for eps in GRID:
            for i in range(0, len(x), batch):
                adv = attack(net, x[i : i + batch], y[i : i + batch], eps)
                with torch.no_grad():
                    held[i : i + batch] &= net(adv).argmax(1) == y[i : i + batch]
            out.append(float(held.float().mean()))
        return out

    return curve


def torchattacks_pgd(net: Counted, x: Tensor, y: Tensor, eps: float) -> Tensor:
    import torchattacks

    return torchattacks.PGD(net, eps=eps, alpha=STEP * eps, steps=STEPS, random_start=True)(x, y)


def foolbox_pgd(net: Counted, x: Tensor, y: Tensor, eps: float) -> Tensor:
    import foolbox

    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    return foolbox.attacks.LinfPGD(rel_stepsize=STEP, steps=STEPS, random_start=True)(model, x, y, epsilons=eps)[1]


def art_pgd(net: Counted, x: Tensor, y: Tensor, eps: float) -> Tensor:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    classes = int(net(x[:1]).shape[1])
    model = PyTorchClassifier(net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1))
    attack = ProjectedGradientDescentPyTorch(
        model, eps=eps, eps_step=STEP * eps, max_iter=STEPS, num_random_init=1, batch_size=len(x), verbose=False
    )
    return torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--peers", nargs="*", default=["torchattacks", "foolbox", "ART"])
    options = parser.parse_args()
    clf = mr.Classifier.load(options.model)
    data, x, y = images_for(clf, options.data, options.n)
    batch = clf.batch_size(x.shape)
    print(f"{data}, n = {len(x)}, {tuple(x.shape[1:])}, batch {batch}, {torch.get_num_threads()} threads\n")
    print("| library | seconds | gradient rows an image | accuracy at 0.3, 0.5, 1, 2/255 | ratio to medrobust |")
    print("|---|---|---|---|---|")
    libraries = {
        "medrobust": ours,
        "torchattacks": each_eps(torchattacks_pgd),
        "foolbox": each_eps(foolbox_pgd),
        "ART": each_eps(art_pgd),
    }
    base = None
    for name in ["medrobust", *options.peers]:
        run = libraries[name]
        net = Counted(clf)
        net(x[:batch])
        begin = time.perf_counter()
        accuracy = run(net, clf, x, y, batch)
        seconds = time.perf_counter() - begin
        base = base or (seconds, net.count.rows)
        shown = []
        for level in (0.3, 0.5, 1, 2):
            value = accuracy[int(np.argmin([abs(e * 255 - level) for e in GRID]))]
            interval = stats.proportion(np.arange(len(x)) < round(value * len(x)))
            shown.append(f"{value:.0%} ({interval.low:.0%} to {interval.high:.0%})")
        print(
            f"| {name} | {seconds:.1f} | {net.count.rows / len(x):.0f} | {', '.join(shown)} | "
            f"{seconds / base[0]:.1f} x time, {net.count.rows / base[1]:.1f} x gradients |",
            flush=True,
        )


if __name__ == "__main__":
    main()
