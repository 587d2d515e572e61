"""Adversarial training: medrobust and ART in turn, from the same weights, at equal epochs and steps of the attack.

    python -m benchmarks.hardening MODEL DATA [--name NAME] [--eps 4] [--epochs 4] [--steps 7] [--seeds 2] [--n 624]
        [--out CSV]

MODEL is a folder saved by medrobust, DATA a data spec with training, validation and test images. ART's trainers
(Madry's PGD, TRADES) get Adam at the rate at which medrobust begins, batches of 32, and the last epoch is kept, as
they do. Both are judged by `auto` on n test images. Prints, and appends to CSV, accuracy and accuracy under attack
with their 95 % intervals, and the CPU seconds of the training, validation included on our side.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from benchmarks.gradient_check import Scaled
from torch import nn

import medrobust as mr
from medrobust import stats, training
from medrobust.attacks import Auto, run
from medrobust.training.adversarial import METHODS

COLUMNS = ("set", "method", "side", "seed", "epochs", "accuracy", "under attack", "n", "CPU seconds of training")
RATE = 3e-4


def ours(clf: mr.Classifier, data: mr.data.Dataset, method: str, ball: mr.Linf, epochs: int, steps: int, seed: int):
    trainer = METHODS[method](ball, steps=steps)
    return training.further(clf, data, epochs=epochs, lr=RATE, seed=seed, augment=False, method=trainer)


def art(clf: mr.Classifier, data: mr.data.Dataset, method: str, ball: mr.Linf, epochs: int, steps: int, seed: int):
    from art.attacks.evasion import ProjectedGradientDescent
    from art.defences.trainer import AdversarialTrainerMadryPGD, AdversarialTrainerTRADESPyTorch
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - ART draws from the global generator
    x, y = data.split("train").tensors()
    net = copy.deepcopy(Scaled(clf))
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    model = PyTorchClassifier(
        net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), len(clf.classes), optimizer=optimiser, clip_values=(0.0, 1.0)
    )
    eps, labels = float(ball.eps), np.eye(len(clf.classes), dtype=np.float32)[y.numpy()]
    if method == "pgd":
        trainer = AdversarialTrainerMadryPGD(
            model, nb_epochs=epochs, batch_size=32, eps=eps, eps_step=eps / 4, max_iter=steps
        )
        trainer.fit(x.numpy(), labels)
    else:
        attack = ProjectedGradientDescent(
            model, eps=eps, eps_step=eps / 4, max_iter=steps, num_random_init=1, batch_size=32, verbose=False
        )
        AdversarialTrainerTRADESPyTorch(model, attack, beta=6.0).fit(x.numpy(), labels, nb_epochs=epochs, batch_size=32)
    return mr.Classifier(net.eval(), clf.classes, channels=x.shape[1], size=clf.size, outputs="logits")


SIDES: dict[str, Callable[..., mr.Classifier]] = {"medrobust": ours, "ART": art}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--name")
    parser.add_argument("--eps", type=float, default=4.0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--n", type=int, default=624)
    parser.add_argument("--methods", nargs="+", default=["pgd", "trades"])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clf, ball = mr.Classifier.load(options.model), mr.Linf(options.eps / 255)
    data = mr.data.load(options.data, size=clf.size)
    images, labels = data.split("test").sample(options.n, 0).tensors()
    for method in options.methods:
        for seed in range(options.seeds):
            for side, train in SIDES.items():
                begin = time.process_time()
                made = train(clf, data, method, ball, options.epochs, options.steps, seed)
                seconds = time.process_time() - begin
                clean = stats.proportion((made.predict(images) == labels).numpy())
                broken = run(Auto(), made, images, mr.Untargeted(labels), ball, seed=0).reached
                left = stats.proportion((~broken).numpy())
                shares = [f"{s.value:.1%} ({s.low:.1%} to {s.high:.1%})" for s in (clean, left)]
                row = [
                    options.name or data.name,
                    method,
                    side,
                    seed,
                    options.epochs,
                    *shares,
                    len(labels),
                    f"{seconds:.0f}",
                ]
                print(*row, sep=" | ", flush=True)
                if options.out:
                    new = not options.out.exists()
                    with options.out.open("a", newline="", encoding="utf-8") as stream:
                        csv.writer(stream, lineterminator="\n").writerows([COLUMNS, row] if new else [row])


if __name__ == "__main__":
    main()
