"""A sturdy network to measure on: adversarial training (Madry et al. 2018, arXiv:1706.06083), the plain recipe.

    python benchmarks/harden.py MODEL DATA OUT [--eps 4] [--epochs 4]

Trains the saved MODEL further on PGD-5 examples of eps grey levels and saves it to OUT. About two minutes for a
ResNet-18 at 28 px on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

import medrobust as mr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--eps", type=float, default=4.0)
    parser.add_argument("--epochs", type=int, default=4)
    options = parser.parse_args()
    clf = mr.Classifier.load(options.model)
    data = mr.data.load(options.data, size=clf.size)
    x, y = data.split("train").tensors()
    optimiser = torch.optim.SGD(clf.net.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)
    attack, ball = mr.attacks.PGD(steps=5, step=0.4), mr.Linf(options.eps / 255)
    for epoch in range(options.epochs):
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(64):
            adv = attack(clf, x[batch], mr.Untargeted(y[batch]), ball, seed=epoch, ids=batch.tolist(), full=True)
            clf.net.train()
            loss = nn.functional.cross_entropy(clf.net((adv - clf.mean[0]) / clf.std[0]), y[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        clf.net.eval()
        print(f"epoch {epoch + 1}: last loss {loss.item():.3f}", flush=True)
    clf.save(options.out)


if __name__ == "__main__":
    main()
