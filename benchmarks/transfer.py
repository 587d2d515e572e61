"""Examples made on one network and shown to another: medrobust and torchattack in turn, at equal gradients.

    python benchmarks/transfer.py SOURCE TARGET DATA [--name NAME] [--size 64] [--eps 8] [--n 100] [--gradients 20]
        [--seeds 5] [--ours transferable mifgsm] [--peers MIFGSM DIFGSM ...] [--out CSV]

SOURCE and TARGET are folders saved by medrobust, or ARCHITECTURE=WEIGHTS (cifar_resnet20=cifar10_resnet20-12fca82f.th),
SOURCE also several joined by + (the mean of their logits, for both sides);
DATA a data spec; eps in grey levels. Needs the package torchattack. Each seed draws n test images that both networks
read correctly. Every attack makes as many steps as the gradients allow, with the defaults of its package else (SSA with
5 spectra a step instead of 20, and at the size of the images: it is written for 224 px); TIFGSM takes colour images
only. Success is judged by medrobust on TARGET. Prints, and appends to CSV, the mean over the seeds, the least and the
largest, and by how much the first of ours is above each on the same seeds, with the 95 % Student interval.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
import torchattack
from torch import Tensor

import medrobust as mr
from counting import Counted
from medrobust import stats
from medrobust.attacks import ATTACKS, run
from medrobust.attacks.transfer import ensemble
from medrobust.options import parse
from universal_plain import classifier

PEERS = {"MIFGSM": 1, "DIFGSM": 1, "TIFGSM": 1, "SINIFGSM": 3, "VMIFGSM": 6, "VNIFGSM": 6, "SSA": 5}
"""Gradients of one step."""
COLUMNS = ["pair", "eps", "attack", "seeds", "n", "gradients", "fooled", "least", "most", "ours over it"]


def peer(name: str, net: Counted, x: Tensor, y: Tensor, eps: float, gradients: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    attack = getattr(torchattack, name)(net, device=torch.device("cpu"), eps=eps, steps=gradients // PEERS[name])
    if name == "SSA":
        attack.num_spectrum = PEERS[name]

        def transform(z: Tensor) -> Tensor:
            mask = 1 + attack.rho * (2 * torch.rand_like(z) - 1)
            return attack._idct_2d(attack._dct_2d(z + torch.randn_like(z) * attack.eps) * mask)

        attack.transform = transform
    made: Tensor = attack(x.clone(), y).detach()
    return x + (made.clamp(0, 1) - x).clamp(-eps, eps)  # of rounding


def ours(
    text: str, clf: mr.Classifier, x: Tensor, goal: mr.Untargeted, ball: mr.Linf, gradients: int, seed: int
) -> tuple[Tensor, int]:
    name, values = parse(text, ATTACKS, "attack")
    each = values.get("scales", 1) + values.get("variance", 0)
    attack = ATTACKS[name](**{"steps": gradients // each, **values})
    done = run(attack, clf, x, goal, ball, seed=seed, full=True)
    return done.images, int(done.gradients.sum())


def of_one_seed(
    options: argparse.Namespace, source: mr.Classifier, target: mr.Classifier, x: Tensor, y: Tensor, seed: int
) -> dict[str, tuple[float, float]]:
    """By attack: the share fooled of ``options.n`` of these images, and the gradients an image."""
    chosen = np.random.default_rng(seed).permutation(len(x))[: options.n]
    x, y = x[chosen], y[chosen]
    ball, goal = mr.Linf(options.eps / 255), mr.Untargeted(y)
    found = {}
    for name in options.ours:
        made, gradients = ours(name, source, x, goal, ball, options.gradients, seed)
        found[name] = made, gradients
    for name in options.peers:
        if name != "TIFGSM" or x.shape[1] == 3:
            net = Counted(source)
            found[name] = peer(name, net, x, y, float(ball.eps), options.gradients, seed), net.count.rows
    return {
        name: (float(mr.judge(target, x, made, goal, ball).reached.double().mean()), gradients / len(x))
        for name, (made, gradients) in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=lambda text: text.split("+"))
    parser.add_argument("target")
    parser.add_argument("data")
    parser.add_argument("--name", default="")
    parser.add_argument("--size", type=int)
    parser.add_argument("--eps", type=float, default=8.0)
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--gradients", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--ours", nargs="+", default=["transferable", "mifgsm"])
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()

    data = mr.data.load(options.data, size=options.size)
    data = data.split("test") if "train" in data.split_of else data
    source, target = ensemble([classifier(one, data) for one in options.source]), classifier(options.target, data)
    x, y = data.tensors()
    right = (source.predict(x) == y) & (target.predict(x) == y)
    runs = [of_one_seed(options, source, target, x[right], y[right], seed) for seed in range(options.seeds)]
    rows = []
    for name in runs[0]:
        rates = [done[name][0] for done in runs]
        over = stats.mean([done[options.ours[0]][0] - done[name][0] for done in runs])
        difference = "–" if name == options.ours[0] else f"{over.value:+.1%} ({over.low:+.1%} to {over.high:+.1%})"
        gradients = f"{np.mean([done[name][1] for done in runs]):.0f}"
        shares = [f"{share:.1%}" for share in (float(np.mean(rates)), min(rates), max(rates))]
        pair = options.name or f"{'+'.join(options.source)} to {options.target}"
        counts = [str(options.seeds), str(options.n), gradients]
        rows.append([pair, f"{options.eps:g}/255", name, *counts, *shares, difference])
    for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows):
        print("| " + " | ".join(cells) + " |")
    if options.out is not None:
        new = not options.out.exists()
        with options.out.open("a", newline="", encoding="utf-8") as opened:
            csv.writer(opened, lineterminator="\n").writerows([COLUMNS, *rows] if new else rows)


if __name__ == "__main__":
    main()
