"""Defences that hide a gradient: what an attack that knows them leaves, and what attacks find that do not know them.

    medrobust train --out runs/small --data medmnist:pneumoniamnist.npz --model small_cnn --epochs 5
    python -m benchmarks.masked --model runs/small --data medmnist:pneumoniamnist.npz --eps 2/255,4/255

Prints a row a defence of ``tests/defences.py``: accuracy on the clean images, then at each eps the truth (APGD on the
margin and the cross-entropy, and PGD, 60 steps each, through the stand-in of an attack that knows the defence, with the
95 % interval), what ``auto`` and PGD-20 leave along the network's own gradient, and what they leave past the mask; the
cosine of the gradient that they follow, whether the check of an audit believes them, and how they went past. Of random
defences the rates are those of fresh draws. A quarter of an hour for 32 images of 28 px on a quiet CPU.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks.gradient_check import Scaled
from tests.defences import DEFENCES
from torch import Tensor, nn

from medrobust import Classifier, stats
from medrobust.attacks import APGD, PGD, Attack, Auto, run
from medrobust.attacks.choose_substitute import choose
from medrobust.attacks.derivative import derivative
from medrobust.experiments import ask
from medrobust.experiments.gradient_check import compared
from medrobust.experiments.system import assemble
from medrobust.progress import NoProgress
from medrobust.threat import Linf, Untargeted, margin

DRAWS = 20
"""Answers of a random network to each image."""


def right(judged: Classifier, images: Tensor, labels: Tensor, draws: int) -> Tensor:
    """float (n,): share of the answers that are right."""
    return torch.stack([(judged.predict(images) == labels).float() for _ in range(draws)]).mean(0)


def left(
    attacks: Sequence[Attack],
    through: Classifier,
    judged: Classifier,
    images: Tensor,
    labels: Tensor,
    eps: float,
    draws: int,
) -> Tensor:
    """(n,): share of right answers after the strongest of the attacks on each image, counted on answers of its own."""
    strongest, rate = images, right(judged, images, labels, draws)
    for attack in attacks:
        attacked = run(attack, through, images, Untargeted(labels), Linf(eps), seed=0, full=draws > 1).images
        after = right(judged, attacked, labels, draws)
        strongest = torch.where((after < rate).view(-1, 1, 1, 1), attacked, strongest)
        rate = torch.minimum(rate, after)
    return right(judged, strongest, labels, draws)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def row(name: str, whole: Classifier, images: Tensor, labels: Tensor, count: int, sizes: Sequence[float]) -> list[str]:
    """count: images on which gradients are compared and stand-ins tried."""
    defence, begin, base = DEFENCES[name], time.process_time(), Scaled(whole).eval()
    draws = DRAWS if defence.random else 1

    def made(net: nn.Module) -> Classifier:
        result = Classifier(net.eval(), whole.classes, channels=images.shape[1], outputs="logits")
        result.ready(images[:8])
        return result

    defended, known = made(defence.wrap(base)), made(defence.known(base))
    own = derivative(defended, images[:count])
    holds, cosine, past, through = own.holds, own.cosine, "", defended
    if own.holds is False and not defence.random:
        best = choose(defended, images[:count], labels[:count])[-1]
        if best.substitute is not None and best.derivative is not None:
            through = defended.changed(substitute=best.substitute)
            holds, cosine, past = best.substitute.agrees, best.derivative.cosine, best.substitute.text
    cells = [name, str(len(images)), percent(float(right(defended, images, labels, draws).mean()))]
    for eps in sizes:
        strong = (APGD(60, loss=margin), APGD(60), PGD(60))
        truth = left(strong, known, defended, images, labels, eps, draws)
        blind = left((PGD(20),), defended, defended, images, labels, eps, draws)
        found = left((Auto(50, 300), PGD(20)), through, defended, images, labels, eps, draws)
        if draws == 1:
            low, high = stats.proportion(truth.bool().numpy())[1:3]
        else:
            low, high = stats.mean(truth.numpy())[1:3]
        cells += [
            f"{percent(float(truth.mean()))} ({100 * low:.0f} to {100 * high:.0f})",
            percent(float(blind.mean())),
            percent(float(found.mean())),
        ]
    verdict = "believed" if holds else "inconclusive"
    return [*cells, f"{cosine:.2f}", verdict, past, f"{time.process_time() - begin:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int)
    parser.add_argument("--eps", default="2/255,4/255")
    parser.add_argument("--limit", type=int, default=32)
    parser.add_argument("--only", default="", help="defences, separated by ;")
    parser.add_argument("--out", type=Path, help="a csv file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    spec = ask(data=options.data, model=options.model, size=options.size, limit=options.limit)
    system = assemble(spec, None, NoProgress(), "cpu")
    whole, (images, labels) = system.classifier, system.sample.tensors()
    sizes = [float(a) / float(b or 1) for a, _, b in (e.partition("/") for e in options.eps.split(","))]
    head = ["defence", "n", "clean"]
    for eps in options.eps.split(","):
        head += [f"truth at {eps}", f"own gradient at {eps}", f"past the mask at {eps}"]
    head += ["cosine", "verdict", "on the way back", "seconds of CPU"]
    stream = options.out.open("w", newline="") if options.out else sys.stdout
    out = csv.writer(stream)
    out.writerow(head)
    for name in options.only.split(";") if options.only else DEFENCES:
        out.writerow(row(name, whole, images, labels, compared(system.sample), sizes))
        stream.flush()  # a row takes up to a minute


if __name__ == "__main__":
    main()
