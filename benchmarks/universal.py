"""Universal perturbations of medrobust and of ART on the same network, images, norm and size, in turn, one process.

    python benchmarks/universal.py MODEL DATA [--label COLUMN] [--n 100] [--held-out 300] [--passes 15] [--target 0]
        [--zeta 0.04]

MODEL is a folder saved by medrobust, DATA a data spec; needs the extra `peers`. L2, eps = zeta x the mean norm. Made on
n training images, judged by medrobust on held-out test images, clipped to [0, 1], against the clean prediction. ART:
UniversalPerturbation and TargetedUniversalPerturbation, both with FGSM inside and the settings of Hirano et al. 2021
(a step of 0.0024 on [-1, 1], --passes passes at most, stop at a rate of 1 - 1e-6). medrobust: SGA as it is, and in one
and two passes of longer steps, which is what so few images need (chosen on validation images of the chest X-rays); each
from a freshly loaded network. Prints wall and CPU time, gradients, Rf or Rs on held-out images with intervals, and how
many times our time ART took, where ours reaches at least its rate.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust.stats import Estimate
from medrobust.universal import SGA, Universal, UniversalMethod

STEP = 0.0012
"""Of the sign steps of Hirano & Takemoto's method, in [0, 1]."""


class Counted(nn.Module):
    """Pixels in [0, 1] to logits, counting rows of which a gradient is taken."""

    def __init__(self, clf: mr.Classifier) -> None:
        super().__init__()
        self.net = clf.net.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(clf.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(clf.std).view(1, -1, 1, 1))
        self.channels = clf.channels
        self.gradients = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            self.gradients += x.shape[0]
        if self.channels:
            x = x.expand(-1, self.channels, -1, -1)
        return self.net((x - self.mean) / self.std)


Made = tuple[Tensor, int]
"""The perturbation, and how many gradients were taken."""
Make = Callable[[mr.Classifier, Tensor, int | None, mr.L2], Made]


def ours(method: UniversalMethod) -> Make:
    def make(clf: mr.Classifier, x: Tensor, target: int | None, ball: mr.L2) -> Made:
        v = method(clf, x, mr.Untargeted() if target is None else mr.Targeted(target), ball)
        return v.delta, v.provenance["gradients"]

    return make


def peer(passes: int) -> Make:
    def make(clf: mr.Classifier, x: Tensor, target: int | None, ball: mr.L2) -> Made:
        from art.attacks.evasion import TargetedUniversalPerturbation, UniversalPerturbation
        from art.estimators.classification import PyTorchClassifier

        net, classes = Counted(clf), len(clf.classes)
        model = PyTorchClassifier(net, nn.CrossEntropyLoss(), tuple(x.shape[1:]), classes, clip_values=(0, 1))
        given = {"attacker": "fgsm", "delta": 1e-6, "max_iter": passes, "eps": float(ball.eps), "norm": 2}
        if target is None:
            attack = UniversalPerturbation(model, attacker_params={"eps": STEP}, verbose=False, **given)
            attack.generate(x.numpy())
        else:
            attack = TargetedUniversalPerturbation(model, attacker_params={"eps": STEP, "targeted": True}, **given)
            attack.generate(x.numpy(), np.eye(classes, dtype=np.float32)[[target] * len(x)])
        return torch.from_numpy(np.asarray(attack.noise, dtype=np.float32))[0], net.gradients

    return make


def shown(e: Estimate) -> str:
    return f"{e.value:.1%} ({e.low:.0%} to {e.high:.0%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--label", default="label")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--held-out", type=int, default=300)
    parser.add_argument("--passes", type=int, default=15)
    parser.add_argument("--target", type=int, default=0)
    parser.add_argument("--zeta", type=float, default=0.04)
    options = parser.parse_args()
    for module in ("attacks.evasion", "estimators.classification"):
        importlib.import_module(f"art.{module}")  # it takes seconds, which are not to be counted

    clf = mr.Classifier.load(options.model)
    data = mr.data.load(options.data, size=clf.size or clf.provenance.get("size"), label=options.label)
    x, _ = data.split("train").sample(options.n, 0).tensors()
    held, _ = data.split("test").sample(options.held_out, 0).tensors()
    ball, clean = mr.L2.relative(options.zeta, x), clf.predict(held).numpy()
    print(f"{data.name}: made on {len(x)}, judged on {len(held)} images, {tuple(x.shape[1:])}, L2 eps {ball.eps:.3f}")
    print("\n| goal | method | seconds | CPU seconds | gradients | held out | size / eps | ART over it: time, CPU |")
    print("|---|---|---|---|---|---|---|---|")
    methods: dict[str, Make] = {
        f"ART, FGSM, {options.passes} passes at most": peer(options.passes),
        "medrobust SGA": ours(SGA()),
        "medrobust SGA, one pass": ours(SGA(passes=1, outer=8, step=0.4, inner_step=0.4)),
        "medrobust SGA, two passes": ours(SGA(passes=2, outer=16, step=0.4, inner_step=0.4)),
    }
    for target in (None, options.target):
        goal = mr.Untargeted() if target is None else mr.Targeted(target)
        first: tuple[float, float, float] | None = None
        for name, make in methods.items():
            fresh = mr.Classifier.load(options.model)
            fresh.predict(x[:8])
            wall, cpu = time.perf_counter(), time.process_time()
            delta, gradients = make(fresh, x, target, ball)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            v = Universal(ball.project(delta[None])[0], ball, goal, {"method": name})
            outcome = mr.universal.judge(clf, held, v, clean=clean)
            rate = outcome.targeted_success or outcome.fooling_rate
            first = first or (wall, cpu, rate.value)
            ratio = f"{first[0] / wall:.1f} x, {first[1] / cpu:.1f} x" if rate.value >= first[2] else "below ART's rate"
            print(
                f"| {'nontargeted' if target is None else clf.classes[target]} | {name} | {wall:.1f} | {cpu:.1f} | "
                f"{gradients} | {shown(rate)} | {v.size / float(ball.eps):.0%} | {ratio} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
