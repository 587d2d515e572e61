"""Decision-based attacks: foolbox's HopSkipJump and those of medrobust, in turn, one process, the same queries.

    python benchmarks/decision_based.py MODEL DATA [--n 16] [--queries 1000 5000] [--norm l2]
        [--weights FILE --mean .5 --std .5] [--size 64] [--label index]

MODEL is a folder saved by medrobust, or the name of an architecture whose --weights are given; DATA a data spec; needs
the extra `peers`. The goal is any other decision than on the clean image. All get the same network, the same images
and the same start: the nearest of the other images that gets another decision. Every row that a network is given is a
query; a wrapper around foolbox's model counts them, keeps the smallest perturbation after each number of queries, and
ends the attack at the last one. foolbox is given one image at a time: with several it divides each estimate by the norm
of all of them (version 3.3.4).
Prints the median perturbation (L2, or Linf in grey levels) after each number of queries, and seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust.attacks import CGBA, DecisionBased, HopSkipJump, RayS, decided
from medrobust.experiments import ask
from medrobust.experiments.system import assemble
from medrobust.progress import NoProgress
from medrobust.threat import BALLS


class Spent(Exception):  # noqa: N818 (it ends an attack, and is no error)
    """The budget is used up."""


class Watched(nn.Module):
    """The network for one image: counts queries, and keeps the smallest perturbation after each of ``counts``."""

    def __init__(
        self, clf: mr.Classifier, origin: Tensor, label: int, ball: mr.threat.Ball, counts: Sequence[int]
    ) -> None:
        super().__init__()
        self.clf, self.origin, self.label, self.ball, self.counts = clf, origin, label, ball, counts
        self.used, self.smallest = 0, [float("inf")] * len(counts)

    def forward(self, x: Tensor) -> Tensor:
        if self.used + len(x) > self.counts[-1]:
            raise Spent
        self.used += len(x)
        logits = self.clf(x)
        fooled = logits.argmax(1) != self.label
        size = torch.where(fooled, self.ball.size(x - self.origin), torch.inf).min().item()
        for k, count in enumerate(self.counts):
            if self.used <= count:
                self.smallest[k] = min(self.smallest[k], size)
        return logits


def foolbox(clf: mr.Classifier, x: Tensor, y: Tensor, starts: Tensor, norm: str, counts: Sequence[int]) -> np.ndarray:
    """(n, counts) smallest perturbations of foolbox's HopSkipJump."""
    from foolbox import PyTorchModel
    from foolbox.attacks import HopSkipJumpAttack

    rows = []
    for k in range(len(x)):
        torch.manual_seed(k)
        net = Watched(clf, x[k : k + 1], int(y[k]), BALLS[norm](0.0), counts).eval()
        attack = HopSkipJumpAttack(steps=10_000, constraint=norm)
        model = PyTorchModel(net, bounds=(0, 1), device="cpu")
        try:
            with torch.no_grad():
                attack.run(model, x[k : k + 1], y[k : k + 1], starting_points=starts[k : k + 1])
        except Spent:
            pass
        except AssertionError:  # its own: a point on the boundary is not adversarial any more
            print(f"  foolbox gave up on image {k} after {net.used} queries")
        rows.append(net.smallest)
    return np.array(rows)


def starts_of(clf: mr.Classifier, x: Tensor, y: Tensor, known: Tensor, norm: str) -> Tensor:
    """For each image the nearest of ``known`` with another decision."""
    decisions, ball, out = clf.predict(known), BALLS[norm](0.0), []
    for k in range(len(x)):
        others = known[decisions != y[k]]
        out.append(others[ball.size(others - x[k]).argmin()])
    return torch.stack(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--weights")
    parser.add_argument("--mean", type=float, nargs="+")
    parser.add_argument("--std", type=float, nargs="+")
    parser.add_argument("--size", type=int)
    parser.add_argument("--label", default="label")
    parser.add_argument("--n", type=int, default=16)
    parser.add_argument("--queries", type=int, nargs="+", default=[1000, 5000])
    parser.add_argument("--norm", choices=("l2", "linf"), default="l2")
    arguments = parser.parse_args()
    n, counts, norm = arguments.n, sorted(arguments.queries), arguments.norm
    subject = {k: getattr(arguments, k) for k in ("data", "model", "weights", "mean", "std", "size", "label")}
    system = assemble(ask(**subject, limit=max(100, 4 * n)), None, NoProgress(), "cpu")
    clf, name = system.classifier, system.data.name
    known, _ = system.sample.tensors()
    x = known[:: len(known) // n][:n]
    y = clf.predict(x)
    starts, unit = starts_of(clf, x, y, known, norm), 255 if norm == "linf" else 1
    print(f"{arguments.model} on {name}: {len(x)} images, {norm}, after {counts} queries")
    began = time.perf_counter()
    sizes = {"foolbox HopSkipJump": foolbox(clf, x, y, starts, norm, counts)}
    seconds = [time.perf_counter() - began]
    attacks: list[DecisionBased] = [HopSkipJump(counts[-1]), (CGBA if norm == "l2" else RayS)(counts[-1])]
    for attack in attacks:
        began = time.perf_counter()
        from_known = attack.starting_from(known, clf.logits(known))
        done = decided(from_known, clf, x, mr.Untargeted(y), BALLS[norm], counts)
        sizes[f"medrobust {attack.title}"] = done.sizes.numpy()
        seconds.append(time.perf_counter() - began)
    for (title, rows), wall in zip(sizes.items(), seconds, strict=True):
        medians = "  ".join(f"{v * unit:.3f}" for v in np.median(rows, 0))
        print(f"{title:24s} {medians}  {wall:.0f} s")


if __name__ == "__main__":
    main()
