"""Adversarial training: medrobust and others in turn, from the same weights, at equal epochs and steps of the attack.

    python -m benchmarks.hardening MODEL DATA [--name NAME] [--eps 4] [--epochs 4] [--steps 7] [--seeds 2] [--n 624]
        [--methods plain pgd trades mart] [--alone] [--out CSV]

MODEL is a folder saved by medrobust, DATA a data spec with training, validation and test images. The peers are ART's
trainers (Madry's PGD, TRADES) and, for MART, the loop that its authors published; they get Adam at the rate at which
medrobust begins, batches of 32, and their last epoch is kept, as they do. Both sides are judged by `auto` on n test
images. Prints, and appends to CSV, accuracy and accuracy under attack with their 95 % intervals, and the CPU seconds
of the training, validation included on our side; `plain` is as many epochs without an attack. --alone: no peers.
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
import torch.nn.functional as F
from benchmarks.gradient_check import Scaled
from torch import nn

import medrobust as mr
from medrobust import stats, training
from medrobust.attacks import Auto, run
from medrobust.training.adversarial import METHODS

COLUMNS = ("set", "method", "side", "seed", "epochs", "accuracy", "under attack", "n", "CPU seconds of training")
RATE = 3e-4
PLAIN = "plain"
"""As many epochs more without an attack: what the training against attacks costs beside it."""


def ours(clf: mr.Classifier, data: mr.data.Dataset, method: str, ball: mr.Linf, epochs: int, steps: int, seed: int):
    trainer = None if method == PLAIN else METHODS[method](ball, steps=steps)
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


def authors(clf: mr.Classifier, data: mr.data.Dataset, _: str, ball: mr.Linf, epochs: int, steps: int, seed: int):
    """MART as in mart.py of Wang et al. 2020 (github.com/YisenWang/MART): their loss and their loop, their beta = 5."""
    torch.manual_seed(seed)
    x, y = data.split("train").tensors()
    net, eps = copy.deepcopy(Scaled(clf)), float(ball.eps)
    optimiser = torch.optim.Adam(net.parameters(), lr=RATE)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(32):
            images, labels = x[rows], y[rows]
            net.eval()
            adv = images + 0.001 * torch.randn_like(images)
            for _ in range(steps):
                adv = adv.detach().requires_grad_()
                (slope,) = torch.autograd.grad(F.cross_entropy(net(adv), labels), adv)
                adv = adv.detach() + eps / 4 * slope.sign()
                adv = adv.clamp(images - eps, images + eps).clamp(0.0, 1.0)
            net.train()
            optimiser.zero_grad()
            logits, attacked = net(images), net(adv)
            probabilities = F.softmax(attacked, dim=1)
            first = probabilities.argsort(dim=1)[:, -2:]
            other = torch.where(first[:, -1] == labels, first[:, -2], first[:, -1])
            boosted = F.cross_entropy(attacked, labels) + F.nll_loss((1.0001 - probabilities + 1e-12).log(), other)
            clean = F.softmax(logits, dim=1)
            own = clean.gather(1, labels[:, None])[:, 0]
            moved = F.kl_div((probabilities + 1e-12).log(), clean, reduction="none").sum(1)
            (boosted + 5.0 * (moved * (1.0000001 - own)).mean()).backward()
            optimiser.step()
    return mr.Classifier(net.eval(), clf.classes, channels=x.shape[1], size=clf.size, outputs="logits")


Side = Callable[..., mr.Classifier]
PEERS: dict[str, tuple[str, Side] | None] = {
    PLAIN: None,
    "pgd": ("ART", art),
    "trades": ("ART", art),
    "mart": ("the authors' loop", authors),
}


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
    parser.add_argument("--methods", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    clf, ball = mr.Classifier.load(options.model), mr.Linf(options.eps / 255)
    data = mr.data.load(options.data, size=clf.size)
    images, labels = data.split("test").sample(options.n, 0).tensors()
    for method in options.methods:
        for seed in range(options.seeds):
            peer = None if options.alone else PEERS[method]
            for side, train in [("medrobust", ours), *([peer] if peer else [])]:
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
