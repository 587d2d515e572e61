"""Universal perturbations of medrobust and of ART on the same network, images, norm and size, in turn, one process.

    python benchmarks/universal.py MODEL DATA [--n 100] [--held-out 100] [--passes 3] [--target 0] [--zeta 0.04]

MODEL is a folder saved by medrobust, DATA a data spec; needs the extra `peers`. L2, eps = zeta x the mean norm. Made on
n training images, judged by medrobust on held-out test images, clipped to [0, 1], against the clean prediction. ART:
UniversalPerturbation with DeepFool (its default) and TargetedUniversalPerturbation with FGSM, each with so many passes
at most. Prints wall time, gradient and forward rows counted inside the network, Rf and Rs with their intervals.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust.stats import Estimate
from medrobust.universal import SGA, SGDUAP, Sequential, Universal

STEP = 0.0012
"""Of the sign steps of Hirano & Takemoto's method, in [0, 1]."""


class Counted(nn.Module):
    """Pixels in [0, 1] to logits, counting rows."""

    def __init__(self, clf: mr.Classifier) -> None:
        super().__init__()
        self.net = clf.net.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(clf.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(clf.std).view(1, -1, 1, 1))
        self.channels = clf.channels
        self.looks = self.gradients = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.looks += x.shape[0]
        if torch.is_grad_enabled() and x.requires_grad:
            self.gradients += x.shape[0]
        if self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        return self.net((x - self.mean) / self.std)


Make = Callable[[Counted, mr.Classifier, Tensor, int | None, mr.L2], Tensor]


def ours(method: mr.universal.UniversalMethod) -> Make:
    def make(net: Counted, clf: mr.Classifier, x: Tensor, target: int | None, ball: mr.L2) -> Tensor:
        counted = mr.Classifier(net, clf.classes, channels=x.shape[1], lanes=clf.lanes(x.shape))
        goal = mr.Untargeted() if target is None else mr.Targeted(target)
        return method(counted, x, goal, ball).delta

    return make


def art(passes: int) -> Make:
    def make(net: Counted, clf: mr.Classifier, x: Tensor, target: int | None, ball: mr.L2) -> Tensor:
        from art.attacks.evasion import TargetedUniversalPerturbation, UniversalPerturbation
        from art.estimators.classification import PyTorchClassifier

        classes = len(clf.classes)
        model = PyTorchClassifier(net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1))
        given = {"delta": 1e-6, "max_iter": passes, "eps": float(ball.eps), "norm": 2}
        if target is None:
            attack = UniversalPerturbation(
                model, attacker="deepfool", attacker_params={"verbose": False}, verbose=False, **given
            )
            attack.generate(x.numpy())
        else:
            inner = {"eps": STEP, "targeted": True}
            attack = TargetedUniversalPerturbation(model, attacker="fgsm", attacker_params=inner, **given)
            attack.generate(x.numpy(), np.eye(classes, dtype=np.float32)[[target] * len(x)])
        return torch.from_numpy(np.asarray(attack.noise, dtype=np.float32))[0]

    return make


def shown(e: Estimate | None) -> str:
    return "" if e is None else f"{e.value:.1%} ({e.low:.0%} to {e.high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=100)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--target", type=int, default=0)
    parser.add_argument("--zeta", type=float, default=0.04)
    asked = parser.parse_args()
    clf = mr.Classifier.load(asked.model)
    data = mr.data.load(asked.data, size=clf.size)
    x, _ = data.split("train").tensors(asked.n)
    held, _ = data.split("test").tensors(asked.held_out)
    ball = mr.L2.relative(asked.zeta, x)
    print(f"{data.name}: made on {len(x)}, judged on {len(held)} images, {tuple(x.shape[1:])}, L2 eps {ball.eps:.3f}")
    print("\n| goal | method | seconds | gradient rows | forward rows | Rf held out | Rs held out | time |")
    print("|---|---|---|---|---|---|---|---|")
    methods: dict[str, Make] = {
        "medrobust SGA": ours(SGA(passes=asked.passes)),
        "medrobust SGD-UAP": ours(SGDUAP(passes=asked.passes)),
        "medrobust Sequential": ours(Sequential(step=STEP, passes=asked.passes)),
        "ART": art(asked.passes),
    }
    clean = None
    for target in (None, asked.target):
        first = None
        for name, make in methods.items():
            net = Counted(clf)
            net(x[:8])
            net.looks = net.gradients = 0
            begin = time.perf_counter()
            delta = make(net, clf, x, target, ball)
            seconds = time.perf_counter() - begin
            first = first or seconds
            goal = mr.Untargeted() if target is None else mr.Targeted(target)
            v = Universal(ball.project(delta[None])[0], ball, goal, {"method": name})
            outcome = mr.universal.judge(clf, held, v, clean=clean)
            clean = outcome.clean
            print(
                f"| {'nontargeted' if target is None else clf.classes[target]} | {name} | {seconds:.1f} | "
                f"{net.gradients} | {net.looks} | {shown(outcome.fooling_rate)} | {shown(outcome.targeted_success)} | "
                f"{seconds / first:.1f} x |",
                flush=True,
            )


if __name__ == "__main__":
    main()
