"""Accuracy that is proved beside accuracy under attack: a small network as it is, trained with noise, and hardened.

    python benchmarks/certified.py pneumonia medmnist:pneumoniamnist.npz 28 docs/results/certified.csv
    python benchmarks/certified.py chest csv:chest_xray/labels.csv 32 docs/results/certified.csv

Trains the three networks, attacks and bounds the same test images in Linf (auto; CROWN), and the smoothed network of
each in L2 (PGD through the mean of noisy copies, each result decided by fresh copies; Cohen's radius). Adds a row a
number to the table: a share with its 95 % interval and its n. Kept in OUT.parts, so that a second call goes on.
"""

from __future__ import annotations

import argparse
import csv
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust import stats
from medrobust.attacks import PGD, Auto, sweep
from medrobust.certified import Smoothing, proved, smooth
from medrobust.models.small_cnn import SmallCNN

LINF = tuple(e / 255 for e in (0.25, 0.5, 1, 2, 3, 4, 6, 8))
L2 = (0.1, 0.25, 0.5, 0.75, 1.0)
EPS = {28: 4 / 255}
"""Size that the hardened network is trained against, by the side of the images."""
SIGMA = 0.25
COPIES = 8
"""Noisy copies of an image that the attack on a smoothed network goes through."""
FIELDS = ("data", "size", "network", "of", "norm", "eps", "value", "low", "high", "n", "seconds")


class MeanOfNoisyCopies(nn.Module):
    """Logarithm of the mean of the probabilities of noisy copies, always with the same noise."""

    def __init__(self, net: nn.Module, shape: Sequence[int]) -> None:
        super().__init__()
        self.net = net
        noise = torch.randn(COPIES, *shape, generator=torch.Generator().manual_seed(0))
        self.register_buffer("noise", SIGMA * noise)

    def forward(self, images: Tensor) -> Tensor:
        each = [self.net((images + noise).clamp(0, 1)).log_softmax(1) for noise in self.noise]
        return torch.stack(each).logsumexp(0)


def trained(kind: str, x: Tensor, y: Tensor, epochs: int, eps: float) -> mr.Classifier:
    """A small network, trained on images as they are, with noise, or as PGD changes them."""
    torch.manual_seed(0)
    clf = mr.Classifier(SmallCNN(2, 1, width=8), ["normal", "pneumonia"], outputs="logits")
    optimiser = torch.optim.SGD(clf.net.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
    steps = epochs * -(-len(x) // 64)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=steps)
    attack, ball = PGD(steps=4, step=0.5), mr.Linf(eps)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(64):
            images = x[batch]
            if kind == "noise":
                images = (images + SIGMA * torch.randn(images.shape)).clamp(0, 1)
            elif kind == "hardened":
                goal = mr.Untargeted(y[batch])
                images = attack(clf, images, goal, ball, seed=epoch, ids=batch.tolist(), full=True)
            clf.net.train()
            loss = nn.functional.cross_entropy(clf.net(images), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    clf.net.eval()
    return clf


def attacked_smoothed(clf: mr.Classifier, images: Tensor, labels: Tensor, smoothing: Smoothing) -> np.ndarray:
    """(n, len(L2)): whether the smoothed network still reads each image rightly under attack."""
    soft = mr.Classifier(MeanOfNoisyCopies(clf.net, images.shape[1:]), clf.classes, outputs="logits")
    held = []
    few = Smoothing(smoothing.sigma, 200, 100)
    for eps in L2:
        attacked = PGD(steps=15)(soft, images, mr.Untargeted(labels), mr.L2(eps), full=True)
        held.append((smooth(clf, attacked, few, seed=1).certificate(labels) >= 0).numpy())
    return np.stack(held, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("size", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--draws", type=int, default=500)
    asked = parser.parse_args()
    data = mr.data.load(asked.data, size=asked.size, channels=1)
    x, y = data.split("train").tensors()
    part = data.split("test").sample(asked.images, 0)
    images, labels = part.tensors()
    smoothing, goal = Smoothing(SIGMA, asked.draws), mr.Untargeted(labels)
    rows: list[dict[str, object]] = []
    for kind in ("plain", "noise", "hardened"):
        parts = asked.out.with_suffix(".parts") / f"{asked.name}-{asked.size}-{kind}"
        parts.mkdir(parents=True, exist_ok=True)
        weights = parts / "net.pt"
        clf = mr.Classifier(SmallCNN(2, 1, width=8), ["normal", "pneumonia"], outputs="logits")
        if weights.exists():
            clf.net.load_state_dict(torch.load(weights, weights_only=True))
            clf.net.eval()
        else:
            clf = trained(kind, x, y, asked.epochs, EPS.get(asked.size, 2 / 255))
            torch.save(clf.net.state_dict(), weights)
        clf.ready(images)
        measures: dict[str, Callable[[], np.ndarray]] = {
            "attacked": lambda c=clf: sweep(
                Auto(steps=20, queries=50), c, images, goal, mr.Linf, LINF, ids=part.ids
            ).min_eps.numpy(),
            "proved": lambda c=clf: proved(c, images, labels, "linf", LINF).numpy(),
            "smoothed, attacked": lambda c=clf: attacked_smoothed(c, images, labels, smoothing),
            "smoothed, proved": lambda c=clf: smooth(c, images, smoothing, ids=part.ids).certificate(labels).numpy(),
        }
        for of, measure in measures.items():
            file = parts / f"{of}.npz"
            if not file.exists():
                started = time.process_time()
                np.savez(file, found=measure(), seconds=time.process_time() - started)
            kept = np.load(file)
            found, add = kept["found"], functools.partial(row, asked.name, asked.size, kind, of, float(kept["seconds"]))
            if of == "attacked":
                rows += [add("linf", e, found > np.float32(e)) for e in (0.0, *LINF)]
            elif of == "proved":
                rows += [add("linf", e, found >= e * (1 - 1e-9)) for e in (0.0, *LINF)]
            elif of == "smoothed, attacked":
                rows += [add("l2", e, found[:, i]) for i, e in enumerate(L2)]
            else:
                rows += [add("l2", e, found >= e) for e in (0.0, *L2)]
            print(
                *(f"{r['eps']:.4f}:{r['value']:.2f}" for r in rows if (r["network"], r["of"]) == (kind, of)), flush=True
            )
    before = []
    if asked.out.exists():
        with asked.out.open(encoding="utf-8") as file:
            before = [r for r in csv.DictReader(file) if (r["data"], r["size"]) != (asked.name, str(asked.size))]
    with asked.out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*before, *rows])


def row(
    data: str, size: int, network: str, of: str, seconds: float, norm: str, eps: float, held: np.ndarray
) -> dict[str, object]:
    """A line of the table. held: (n,), whether each image is read rightly."""
    share = stats.proportion(held)
    numbers = {
        "eps": round(eps, 6),
        "value": round(share.value, 4),
        "low": round(share.low, 4),
        "high": round(share.high, 4),
    }
    named = {"data": data, "size": size, "network": network, "of": of, "norm": norm}
    return named | numbers | {"n": share.n, "seconds": round(seconds, 1)}


if __name__ == "__main__":
    main()
