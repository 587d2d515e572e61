"""Universal perturbations of medrobust beside a plain loop of 30 lines, at equal gradients, on held-out images.

    python benchmarks/universal_plain.py MODEL DATA [--name NAME] [--size 64] [--norms linf l2] [--eps 6/255 1.0]
        [--targets none 0] [--methods sgd sga df] [--passes 10] [--n 300] [--held-out 500] [--seeds 5] [--noise]
        [--out CSV]

MODEL is a folder saved by medrobust, or ARCHITECTURE=WEIGHTS such as cifar_resnet20=cifar10_resnet20-12fca82f.th; DATA
a data spec. Made from n training images, judged on test images (of data with test images only: from some, on others);
each seed draws the images anew. --noise: made from n images of noise instead, without any data. --eps: one size for
each norm. --targets: none is nontargeted, a number a class.
The loop: Adam on the mean cross-entropy (of the clean prediction, upwards; of the target, downwards), batches of 32,
one learning rate, clamped to [0, 1] and to the ball after each step, --passes over the images. Ours run
with their defaults and as many gradients at most. Prints, and appends to CSV, the mean over the seeds of the fooling
rate or the targeted success on held-out images, the least and the largest of them, and the mean difference to the
loop on the same seeds with its 95 % Student interval; also of the best of three random changes (``controls``).
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import medrobust as mr
from medrobust import models, stats
from medrobust.options import parse
from medrobust.universal import UNIVERSAL, Noise, Universal, UniversalMethod, controls

LOOP, RANDOM = "plain loop", "best of 3 random"
COLUMNS = ["network", "norm", "goal", "method", "seeds", "gradients", "held out", "least", "most", "over the loop"]


def plain(clf: mr.Classifier, x: Tensor, target: int | None, ball: mr.Linf | mr.L2, passes: int, seed: int) -> Tensor:
    """What one writes without a library. The learning rate is a tenth of the change of each pixel at the edge."""
    rate = 0.1 * float(ball.eps) / (1.0 if isinstance(ball, mr.Linf) else x[0].numel() ** 0.5)
    torch.manual_seed(seed)
    delta = torch.zeros_like(x[0]).requires_grad_()
    adam = torch.optim.Adam([delta], lr=rate)
    with clf.borrowed():
        with torch.no_grad():
            clean = torch.cat([clf(part).argmax(1) for part in x.split(64)])
        for _ in range(passes):
            for index in torch.randperm(len(x)).split(32):
                logits = clf((x[index] + delta).clamp(0, 1))
                if target is None:
                    loss = -F.cross_entropy(logits, clean[index])
                else:
                    loss = F.cross_entropy(logits, torch.full_like(index, target))
                adam.zero_grad()
                loss.backward()
                adam.step()
                with torch.no_grad():
                    if isinstance(ball, mr.Linf):
                        delta.clamp_(-float(ball.eps), float(ball.eps))
                    else:
                        delta.mul_((float(ball.eps) / delta.norm().clamp_min(1e-12)).clamp_max(1))
    return delta.detach()


def images(data: mr.data.Dataset, n: int, held_out: int, seed: int) -> tuple[Tensor, Tensor]:
    """Those it is made from, and those it is judged on."""
    if "train" in data.split_of:
        return data.split("train").sample(n, seed).tensors()[0], data.split("test").sample(held_out, seed).tensors()[0]
    order = np.random.default_rng(seed).permutation(len(data))
    return data.select(order[:n]).tensors()[0], data.select(order[n : n + held_out]).tensors()[0]


def classifier(model: str, data: mr.data.Dataset) -> mr.Classifier:
    """A saved classifier, or a network by name with a file of weights."""
    name, _, weights = model.partition("=")
    if not weights:
        return mr.Classifier.load(model)
    channels, _, side = data.images([0]).shape[1:]
    net = models.build(name, classes=len(data.classes), channels=channels, size=side, pretrained=weights).eval()
    stated = models.normalisation(name, weights)
    mean, std = stated if stated is not None else ([0.0] * channels, [1.0] * channels)
    return mr.Classifier(net, data.classes, channels=channels, mean=mean, std=std)


def of_one_seed(
    clf: mr.Classifier,
    data: mr.data.Dataset,
    options: argparse.Namespace,
    norm: str,
    eps: float,
    target: int | None,
    seed: int,
) -> dict[str, tuple[float, int]]:
    """By method: the share of held-out images that reach the goal, and the gradients."""
    x, held = images(data, options.n, options.held_out, seed)
    if options.noise:
        x = Noise(options.n, x.shape[1:], seed).images(range(options.n))
    ball = {"linf": mr.Linf, "l2": mr.L2}[norm](eps)
    goal = mr.Untargeted() if target is None else mr.Targeted(target)
    clean = clf.predict(held).numpy()
    made = {
        LOOP: Universal(
            plain(clf, x, target, ball, options.passes, seed), ball, goal, {"gradients": options.passes * len(x)}
        )
    }
    for name in options.methods:
        made[name] = method(name, options.passes)(clf, x, goal, ball, seed=seed)
    chance = [mr.universal.judge(clf, held, v, clean=clean).after for v in controls(clf, held, ball, seed)]
    rates = {RANDOM: (max(float(np.mean(a != clean if target is None else a == target)) for a in chance), 0)}
    for name, v in made.items():
        outcome = mr.universal.judge(clf, held, v, clean=clean)
        rates[name] = ((outcome.targeted_success or outcome.fooling_rate).value, int(v.provenance["gradients"]))
    return rates


def method(text: str, passes: int) -> UniversalMethod:
    name, values = parse(text, UNIVERSAL, "method")
    return UNIVERSAL[name](**{"passes": passes, **values})


def arguments(text: str | None) -> argparse.ArgumentParser:
    """What networks, images, sizes and seeds are compared; text: the description."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--name", default="")
    parser.add_argument("--size", type=int)
    parser.add_argument("--norms", nargs="+", default=["linf", "l2"])
    parser.add_argument("--eps", nargs="+", default=["6/255", "1.0"])
    parser.add_argument("--targets", nargs="+", default=["none", "0"])
    parser.add_argument("--passes", type=int, default=10)
    parser.add_argument("--n", type=int, default=300)
    parser.add_argument("--held-out", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path)
    return parser


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--methods", nargs="+", default=["sgd", "sga", "df"])
    parser.add_argument("--noise", action="store_true")
    options = parser.parse_args()

    data = mr.data.load(options.data, size=options.size)
    clf = classifier(options.model, data)
    print("| " + " | ".join(COLUMNS) + " |\n|" + "---|" * len(COLUMNS), flush=True)
    for norm, size in zip(options.norms, options.eps, strict=True):
        above, _, below = size.partition("/")
        for target in options.targets:
            goal = None if target == "none" else int(target)
            runs = [
                of_one_seed(clf, data, options, norm, float(above) / float(below or 1), goal, seed)
                for seed in range(options.seeds)
            ]
            rows = [row(name, runs) for name in (RANDOM, LOOP, *options.methods)]
            words = "nontargeted" if goal is None else f"to {clf.classes[goal]}"
            write([[options.name or options.model, f"{norm} {size}", words, *cells] for cells in rows], options.out)


def row(name: str, runs: list[dict[str, tuple[float, int]]]) -> list[str]:
    rates = [run[name][0] for run in runs]
    over = stats.mean([run[name][0] - run[LOOP][0] for run in runs])
    difference = "–" if name == LOOP else f"{over.value:+.1%} ({over.low:+.1%} to {over.high:+.1%})"
    gradients = round(float(np.mean([run[name][1] for run in runs])))
    shares = [f"{share:.1%}" for share in (float(np.mean(rates)), min(rates), max(rates))]
    return [name, str(len(runs)), str(gradients), *shares, difference]


def write(rows: list[list[str]], out: Path | None) -> None:
    for cells in rows:
        print("| " + " | ".join(cells) + " |", flush=True)
    if out is not None:
        new = not out.exists()
        with out.open("a", newline="", encoding="utf-8") as opened:
            csv.writer(opened, lineterminator="\n").writerows([COLUMNS, *rows] if new else rows)


if __name__ == "__main__":
    main()
