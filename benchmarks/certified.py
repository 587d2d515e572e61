"""Accuracy that is proved beside accuracy under attack: a small network as it is, trained with noise, and hardened.

    python benchmarks/certified.py PneumoniaMNIST medmnist:pneumoniamnist.npz 28 docs/results/certified.csv
    python benchmarks/certified.py "chest X-ray" csv:chest_xray/labels.csv 32 docs/results/certified.csv --epochs 8

Trains the three networks, attacks and bounds the same test images in Linf and L2 (PGD; CROWN), and the smoothed
network of each in L2 (PGD through the mean of noisy copies, each result decided by fresh copies; Cohen's radius).
Writes shares with their 95 % intervals, a size a line. What is finished is kept in OUT.parts, so that a second call
goes on.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust import stats
from medrobust.attacks import PGD, sweep
from medrobust.certified import Smoothing, proved, smooth
from medrobust.experiments.system import groups
from medrobust.models.small_cnn import SmallCNN

LINF = tuple(e / 255 for e in (0.25, 0.5, 1, 2, 4, 8))
L2 = (0.03, 0.1, 0.25)
SMOOTHED = (0.25, 0.5, 0.75)
"""L2 sizes for the smoothed networks."""
EPS = {28: 4 / 255}
"""Size that the hardened network is trained against, by the side of the images."""
SIGMA = 0.25
COPIES = 4
"""Noisy copies of an image that the attack on a smoothed network goes through."""
FIELDS = ("set", "network", "classifier", "size of the change", "proved", "attacked", "n")


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
    clf = mr.Classifier(SmallCNN(2, 1, width=4), ["normal", "pneumonia"], outputs="logits")
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
    """(n, len(SMOOTHED)): whether no attack up to each size makes the smoothed network decide wrongly.

    Where it abstains under attack it is not fooled: the proofs speak of the decision that more draws would give.
    """
    soft = mr.Classifier(MeanOfNoisyCopies(clf.net, images.shape[1:]), clf.classes, outputs="logits")
    held = []
    check = Smoothing(smoothing.sigma, 1000, 100)
    clean = smooth(clf, images, check, seed=1)
    still = clean.abstains | (clean.decision == labels)
    for eps in SMOOTHED:
        attacked = PGD(steps=10)(soft, images, mr.Untargeted(labels), mr.L2(eps), full=True)
        found = smooth(clf, attacked, check, seed=1)
        still = still & (found.abstains | (found.decision == labels))
        held.append(still.numpy())
    return np.stack(held, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("name")
    parser.add_argument("data")
    parser.add_argument("size", type=int)
    parser.add_argument("out", type=Path)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--only", help="one of the three networks; its numbers are kept, the table is not written")
    parser.add_argument("--draws", type=int, default=10_000)
    options = parser.parse_args()
    data = mr.data.load(options.data, size=options.size, channels=1)
    x, y = data.split("train").tensors()
    part = data.split("test").sample(options.images, 0)
    (images, labels), patients = part.tensors(), groups(part)
    smoothing, goal = Smoothing(SIGMA, options.draws), mr.Untargeted(labels)
    rows: list[dict[str, str]] = []
    for kind in (options.only,) if options.only else ("plain", "noise", "hardened"):
        parts = options.out.with_suffix(".parts") / f"{options.name}-{options.size}-{kind}"
        parts.mkdir(parents=True, exist_ok=True)
        weights = parts / "net.pt"
        clf = mr.Classifier(SmallCNN(2, 1, width=4), ["normal", "pneumonia"], outputs="logits")
        if weights.exists():
            clf.net.load_state_dict(torch.load(weights, weights_only=True))
            clf.net.eval()
        else:
            clf = trained(kind, x, y, options.epochs, EPS.get(options.size, 2 / 255))
            torch.save(clf.net.state_dict(), weights)
        clf.ready(images)
        measures: dict[str, Callable[[], np.ndarray]] = {
            "attacked": lambda c=clf: sweep(
                PGD(steps=20), c, images, goal, mr.Linf, LINF, ids=part.ids
            ).min_eps.numpy(),
            "proved": lambda c=clf: proved(c, images, labels, "linf", LINF).numpy(),
            "attacked in L2": lambda c=clf: sweep(
                PGD(steps=20), c, images, goal, mr.L2, L2, ids=part.ids
            ).min_eps.numpy(),
            "proved in L2": lambda c=clf: proved(c, images, labels, "l2", L2).numpy(),
            "smoothed, attacked": lambda c=clf: attacked_smoothed(c, images, labels, smoothing),
            "smoothed, proved": lambda c=clf: smooth(c, images, smoothing, ids=part.ids).certificate(labels).numpy(),
        }
        found: dict[str, np.ndarray] = {}
        seconds: dict[str, float] = {}
        for of, measure in measures.items():
            file = parts / f"{of}.npz"
            if not file.exists():
                started = time.process_time()
                np.savez(file, found=measure(), seconds=time.process_time() - started)
            kept = np.load(file)
            found[of], seconds[of] = kept["found"], float(kept["seconds"])
            print(f"{options.name} {options.size} px, {kind}, {of}: {seconds[of]:.0f} s", flush=True)
        title = f"{options.name}, {options.size} px"
        for e in (0.0, *LINF):
            sides = (found["proved"] >= e * (1 - 1e-9), found["attacked"] > np.float32(e))
            rows.append(row(title, kind, "itself", f"Linf {255 * e:g}/255", patients, *sides))
        for e in L2:
            sides = (found["proved in L2"] >= e * (1 - 1e-9), found["attacked in L2"] > np.float32(e))
            rows.append(row(title, kind, "itself", f"L2 {e:g}", patients, *sides))
        for i, e in enumerate((0.0, *SMOOTHED)):
            held = found["smoothed, attacked"][:, i - 1] if e else None
            rows.append(row(title, kind, "smoothed", f"L2 {e:g}", patients, found["smoothed, proved"] >= e, held))
        print(*(" | ".join(map(str, r.values())) for r in rows if r["network"] == kind), sep="\n", flush=True)
    if options.only:
        return
    kept_rows = []
    if options.out.exists():
        with options.out.open(encoding="utf-8", newline="") as stream:
            kept_rows = [r for r in csv.DictReader(stream) if r["set"] != f"{options.name}, {options.size} px"]
    with options.out.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept_rows, *rows])


def row(
    title: str,
    network: str,
    of: str,
    size: str,
    patients: stats.Groups,
    proved: np.ndarray,
    attacked: np.ndarray | None,
) -> dict[str, str]:
    """A line of the table. proved, attacked: (n,), whether each image is proved, and is left by the attack."""
    shares = ["–" if held is None else written(held, patients) for held in (proved, attacked)]
    return dict(zip(FIELDS, (title, network, of, size, *shares, str(len(proved))), strict=True))


def written(held: np.ndarray, patients: stats.Groups) -> str:
    """ "41.0% (31.9% to 50.8%)"; images of one patient count together."""
    share = stats.proportion(held, patients)
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


if __name__ == "__main__":
    main()
