"""Defences that hide a gradient: what an attack that knows them leaves, and what attacks find that do not know them.

    medrobust train --out runs/small --data medmnist:pneumoniamnist.npz --model small_cnn --epochs 5
    python -m benchmarks.masked --model runs/small --data medmnist:pneumoniamnist.npz --eps 2/255,4/255 --out small.csv

Writes a row a defence of ``tests/defences.py``: accuracy on the clean images, then at each eps the truth (APGD on the
margin and PGD, 40 steps each, through the stand-in of an attack that knows the defence, or what any other attack here
leaves, image by image, with the 95 % interval), what PGD-20 leaves along the network's own gradient, and what ``auto``
and PGD-20 leave past the mask; the cosine of the gradient that they follow, whether the check of an audit believes
them, what is said to hide the gradient, and how they went past. Rates of random defences are those of fresh draws,
other ones than those by which examples are chosen. A row that --out holds already is left as it is, so that a killed
run goes on. Half a minute a row for 24 images of 28 px on a quiet core. ``--summary FILES`` counts what files of rows
hold. ``--audit``: instead, what a whole audit (PGD-20 and ``auto``) of the defended network says at each eps, number
and status, and its decisive checks that failed.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from benchmarks.gradient_check import Scaled
from tests.defences import DEFENCES
from torch import Tensor, nn

import medrobust
from medrobust import Classifier, stats
from medrobust.attacks import APGD, PGD, Attack, Auto, run
from medrobust.attacks.choose_substitute import choose
from medrobust.attacks.derivative import derivative
from medrobust.attacks.drawn import CHOSEN, averaged, followed, held
from medrobust.attacks.masking import causes, sentence
from medrobust.data import Dataset
from medrobust.experiments import ask
from medrobust.experiments.gradient_check import compared
from medrobust.experiments.system import assemble
from medrobust.images import Images
from medrobust.progress import NoProgress
from medrobust.results import Kind
from medrobust.threat import Linf, Untargeted, margin


class Answers:
    """What is right of a defended network's answers to some images; those of ``choosing`` choose examples."""

    def __init__(self, judged: Classifier, labels: Tensor) -> None:
        self.judged, self.labels = judged, labels
        random = judged.draws is not None
        self.choosing = judged.changed(draws=CHOSEN) if random else judged

    def right(self, images: Images, by: Classifier | None = None) -> Tensor:
        """float (n,): share of the answers."""
        by = by or self.judged
        if by.draws is None:
            return (by.predict(images) == self.labels).float()
        return held(by, images, Untargeted(self.labels), range(len(images)))

    def strongest(self, candidates: Sequence[Images]) -> Images:
        """Of several examples of each image that which leaves least."""
        shares = torch.stack([self.right(images, self.choosing) for images in candidates])
        return torch.stack(list(candidates))[shares.argmin(0), torch.arange(len(self.labels))]


def examples(
    attacks: Sequence[Attack], through: Classifier, answers: Answers, images: Images, eps: float
) -> list[Images]:
    full, goal = answers.judged.draws is not None, Untargeted(answers.labels)
    return [run(attack, through, images, goal, Linf(eps), seed=0, full=full).images for attack in attacks]


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def row(name: str, whole: Classifier, images: Tensor, labels: Tensor, count: int, sizes: Sequence[float]) -> list[str]:
    """count: images on which gradients are compared and stand-ins tried."""
    defence, begin, base = DEFENCES[name], time.process_time(), Scaled(whole).eval()

    def made(net: nn.Module) -> Classifier:
        result = Classifier(net.eval(), whole.classes, channels=images.shape[1], outputs="logits")
        result.ready(images[:8])
        return result

    defended, known = made(defence.wrap(base)), made(defence.known(base))
    judged = averaged(defended, images[:8])
    through = followed(judged)
    answers = Answers(judged, labels)
    found = derivative(through, images[:count])
    holds, cosine, past, hidden = found.holds, found.cosine, "", ""
    if holds is False:
        decisions = judged.predict(images)
        first = [int((decisions == d).nonzero()[0, 0]) for d in decisions.unique()]
        hidden = sentence(causes(through, images[first]))
        best = choose(through, images[:count], labels[:count])[-1]
        if best.substitute is not None and best.derivative is not None:
            through = through.changed(substitute=best.substitute)
            holds, cosine, past = best.substitute.agrees, best.derivative.cosine, best.substitute.text
    cells = [name, str(len(images)), percent(float(answers.right(images).mean()))]
    for eps in sizes:
        own = examples((PGD(20),), defended, answers, images, eps)
        tried = examples((Auto(25, 100), PGD(20)), through, answers, images, eps)
        knowing = examples((APGD(40, loss=margin), PGD(40)), known, answers, images, eps)
        candidates = ([images, *own, *tried, *knowing], [images, *own], [images, *tried])
        truth, blind, left = (answers.right(answers.strongest(c)) for c in candidates)
        low, high = stats.proportion(truth.numpy())[1:3]
        cells += [
            f"{percent(float(truth.mean()))} ({100 * low:.0f} to {100 * high:.0f})",
            percent(float(blind.mean())),
            percent(float(left.mean())),
        ]
    verdict = "believed" if holds else "inconclusive"
    return [*cells, f"{cosine:.2f}", verdict, hidden, past, f"{time.process_time() - begin:.0f}"]


def audited(name: str, whole: Classifier, data: Dataset, limit: int, sizes: Sequence[float]) -> list[str]:
    """Of the worst case at each eps the number and its status; the decisive checks that failed."""
    begin = time.process_time()
    net = DEFENCES[name].wrap(Scaled(whole).eval()).eval()
    defended = Classifier(net, whole.classes, channels=data.images([0]).shape[1], outputs="logits")
    off = dict.fromkeys(("universal", "detect", "explain", "stored"), False)
    run_ = medrobust.audit(
        defended, data, eps=sizes, attacks=("pgd:steps=20", "auto"), limit=limit, corruptions="none", **off
    ).run
    worst = {
        r.eps: r for r in run_.rows if r.kind == Kind.WORST and r.metric == "accuracy" and "class_name" not in r.more
    }
    cells = []
    for eps in sizes:
        cells += [percent(worst[eps].value), worst[eps].status]
    failed = "; ".join(c.name for c in run_.checks if c.decisive and c.passed is False) or "none"
    return [name, str(limit), *cells, failed, f"{time.process_time() - begin:.0f}"]


def percentages(text: str) -> list[int]:
    """The numbers of a cell: value, and both ends of its interval where it has one."""
    return [int(number) for number in re.findall(r"\d+", text)]


def summary(file: Path) -> list[list[str]]:
    """A row for each eps of a file of rows: of the fixed defences how many there are, how many their own gradient hides
    (more than 10 points above the truth), how many are broken past the mask to within 10 points of the truth; of all
    how many read "believed", and how many of these leave more than 5 points above the end of the truth's interval.
    """
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    lines = []
    for eps in [name.removeprefix("truth at ") for name in rows[0] if name.startswith("truth at ")]:
        kinds: dict[bool, list[tuple[int, int, int, int, bool]]] = {True: [], False: []}
        for r in rows:
            truth, _, high = percentages(r[f"truth at {eps}"])
            own, past = (percentages(r[f"{name} at {eps}"])[0] for name in ("own gradient", "past the mask"))
            kinds[DEFENCES[r["defence"]].random].append((truth, high, own, past, r["verdict"] == "believed"))
        fixed, every = kinds[False], kinds[False] + kinds[True]
        counts = [
            sum(own > truth + 10 for truth, _, own, _, _ in fixed),
            sum(past <= truth + 10 for truth, _, _, past, _ in fixed),
            sum(believed for *_, believed in every),
            sum(believed and past > high + 5 for _, high, _, past, believed in every),
        ]
        lines.append([file.stem, eps, rows[0]["n"], str(len(fixed)), str(len(kinds[True])), *map(str, counts)])
    return lines


SUMMARY = (
    *("set", "eps", "n", "fixed defences", "random ones", "hidden from their own gradient"),
    *("broken to within 10 points of the truth", "believed", "believed and more than 5 points above"),
)


def main() -> None:
    if "--summary" in sys.argv:
        files = [Path(name) for name in sys.argv[sys.argv.index("--summary") + 1 :]]
        csv.writer(sys.stdout, lineterminator="\n").writerows([SUMMARY, *(line for f in files for line in summary(f))])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--size", type=int)
    parser.add_argument("--eps", default="2/255,4/255")
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--only", default="", help="defences, separated by ;")
    parser.add_argument("--audit", action="store_true")
    parser.add_argument("--out", type=Path, required=True, help="a csv file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    spec = ask(data=options.data, model=options.model, size=options.size, limit=options.limit)
    system = assemble(spec, None, NoProgress(), "cpu")
    whole, (images, labels) = system.classifier, system.sample.tensors()
    sizes = [float(a) / float(b or 1) for a, _, b in (e.partition("/") for e in options.eps.split(","))]
    head = ["defence", "n", "clean"]
    for eps in options.eps.split(","):
        head += [f"truth at {eps}", f"own gradient at {eps}", f"past the mask at {eps}"]
    head += ["cosine", "verdict", "hidden by", "on the way back", "seconds of CPU"]
    if options.audit:
        each = [f"{what} at {eps}" for eps in options.eps.split(",") for what in ("audit", "status")]
        head = ["defence", "n", *each, "decisive checks that failed", "seconds of CPU"]
    rows = list(csv.reader(options.out.open(newline=""))) if options.out.exists() else [head]
    for name in options.only.split(";") if options.only else DEFENCES:
        if name in (r[0] for r in rows):
            continue
        torch.manual_seed(0)
        if options.audit:
            rows.append(audited(name, whole, system.data.split("test"), options.limit, sizes))
        else:
            rows.append(row(name, whole, images, labels, compared(system.sample), sizes))
        with options.out.open("w", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    main()
