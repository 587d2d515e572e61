"""How far does an attacker come who sees only a model's answers, and how much does `auto` find? Real images.

    python studies/black_box.py DATA OUT [PART …] [--sets NAME …]

DATA is a folder with chest_xray/ (table labels.csv), pneumoniamnist.npz, cifar10_test3000.npz and weights/; OUT takes
the classifiers (OUT/NAME/model, trained where missing by studies/universal_perturbations.py's settings) and one cell a
piece of work, so that a killed study goes on. PART: auto, queries, transfer; NAME: pneumonia, cifar, chest; all by
default. Prints the tables of docs/results-blackbox.md.
Duration: 15 to 20 minutes of one core, reckoned from what a query costs; the run of docs/results-blackbox.md shared two
cores with eight other jobs.

To expect: auto breaks everything that the worst of FGSM, BIM, PGD and CW breaks, and more on chest at 0.2/255 (16 %
left against 38 %). Without gradients little is reached where PGD reaches all: of chest images at 1/255 7 % within 100
queries, of CIFAR-10 at 1/255 24 % within 200. What a small surrogate leads to is no better than random noise.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from names import one_of

import medrobust as mr
from medrobust import stats
from medrobust.attacks import (
    BIM,
    FGSM,
    PGD,
    Attack,
    Auto,
    CosineCMAES,
    CosinePSO,
    CWLinf,
    GenAttack,
    OnePixel,
    SimBA,
    Square,
    Transfer,
    run,
)
from medrobust.experiments import ask
from medrobust.experiments.system import System, assemble, groups
from medrobust.progress import NoProgress
from medrobust.stats import Estimate
from medrobust.store import Store
from medrobust.threat import L2, Ball, Linf

VERSION = 1
REVISED: dict[type[Attack], int] = {GenAttack: 2, Auto: 2}
"""Attacks that changed since: GenAttack's crossover mixes; Auto leaves APGD's second run out with two classes."""
N = 50
QUERIES = {"pneumonia": 300, "chest": 100, "cifar": 200}
"""Of each image; one of the 128 px network costs seven times one of the 28 px one."""
COUNTS = (10, 50, 100, 200, 300)
TRIES = 10
"""Random changes an image that the control may try."""
SETS = {
    "pneumonia": ("medmnist:{}/pneumoniamnist.npz", "PneumoniaMNIST, ResNet-18, 28 px"),
    "cifar": ("medmnist:{}/cifar10_test3000.npz", "CIFAR-10 (natural), ResNet-20, 32 px"),
    "chest": ("csv:{}/chest_xray/labels.csv", "chest X-ray, MobileNetV2, 128 px"),
}
TRAINED = {
    "pneumonia": ("--epochs", "5"),
    "chest": (
        "--size",
        "128",
        "--model",
        "mobilenetv2_100",
        "--pretrained",
        "{}/weights/mobilenetv2_100_imagenet.safetensors",
        "--mean",
        "0.5",
        "--std",
        "0.5",
        "--epochs",
        "4",
    ),
    "chest_scratch": ("--size", "128", "--model", "mobilenetv2_100", "--epochs", "10"),
    "chest_small": ("--size", "128", "--model", "small_cnn", "--epochs", "10"),
}
SIZES: dict[str, tuple[Ball, ...]] = {
    "pneumonia": (Linf(4 / 255), Linf(8 / 255), L2(0.5)),
    "chest": (Linf(1 / 255), Linf(2 / 255), L2(0.5)),
    "cifar": (Linf(1 / 255), Linf(2 / 255), L2(0.5)),
}
AUTO_SIZES: dict[str, tuple[Ball, ...]] = {
    "pneumonia": (Linf(2 / 255), Linf(4 / 255), L2(0.5)),
    "chest": (Linf(0.2 / 255), Linf(1 / 255)),
    "cifar": (Linf(0.5 / 255), Linf(1 / 255), L2(0.1)),
}


class Study:
    """Classifiers, images and finished pieces of work in one folder."""

    def __init__(self, data: Path, out: Path) -> None:
        self.data, self.out, self.store = data, out, Store(out)
        self.subject = cache(self._subject)

    def _subject(self, name: str, limit: int) -> System:
        where = SETS[name.partition("_")[0]][0].format(self.data)
        if name == "cifar":
            weights = f"{self.data}/weights/cifar10_resnet20-12fca82f.th"
            spec = ask(data=where, model="cifar_resnet20", weights=weights, limit=limit)
        else:
            folder = self.out / name / "model"
            options = [o.format(self.data) for o in TRAINED[name]]
            command = [sys.executable, "-m", "medrobust.cli", "train", str(folder), "--data", where, *options]
            subprocess.run(command, check=True, stdout=sys.stderr)
            size = None if name == "pneumonia" else 128
            spec = ask(data=where, model=str(folder), size=size, limit=limit)
        return assemble(spec, None, NoProgress(), "cpu")

    def attacked(self, name: str, n: int, attack: Attack, ball: Ball, surrogate: str = "") -> dict[str, np.ndarray]:
        """What the attack did to n images: reached and confirmed by the judge, queries, and what it cost."""
        subject = self.subject(name, n)
        images, labels = subject.sample.tensors()
        goal = mr.Untargeted(labels)
        about = {
            "version": REVISED.get(type(attack), VERSION),
            "kind": "attacked",
            "classifier": subject.model_digest,
            "attack": repr(attack),
            "ball": repr(ball),
            "images": [subject.data_digest, *subject.sample.ids],
        }

        def compute() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            print(f"{name} {ball} {attack.title} {surrogate}", file=sys.stderr, flush=True)
            done = run(attack, subject.classifier, images, goal, ball, ids=subject.sample.ids)
            outcome = mr.judge(subject.classifier, images, done.images, goal, ball)
            by = torch.full_like(done.level, -1) if done.by is None else done.by
            return {}, {
                "reached": outcome.reached.numpy(),
                "clean": outcome.reached_before.numpy(),
                "queries": done.queries.numpy(),
                "gradients": done.gradients.numpy(),
                "forwards": done.forwards.numpy(),
                "blind": done.blind.numpy(),
                "by": by.numpy(),
            }

        return self.store.once(about, compute).arrays

    def noise(self, name: str, n: int, ball: Ball, tries: int) -> dict[str, np.ndarray]:
        """The control: at the edge of the ball in random directions, each a query, until one succeeds."""
        subject = self.subject(name, n)
        images, labels = subject.sample.tensors()
        about = {
            "version": VERSION,
            "kind": "noise",
            "classifier": subject.model_digest,
            "ball": repr(ball),
            "tries": tries,
            "images": [subject.data_digest, *subject.sample.ids],
        }

        def compute() -> tuple[dict[str, Any], dict[str, np.ndarray]]:
            print(f"{name} {ball} noise", file=sys.stderr, flush=True)
            clean = (subject.classifier.predict(images) != labels).numpy()
            queries, reached = np.zeros(len(images), dtype=int), clean.copy()
            for k in range(tries):
                left = torch.from_numpy(np.flatnonzero(~reached))
                ids = [f"{subject.sample.ids[i]}/{k}" for i in left.tolist()]
                shown = ball.move(images[left], images[left] + noise(ball, ids, images.shape[1:]))
                wrong = (subject.classifier.predict(shown) != labels[left]).numpy()
                queries[left.numpy()] += 1
                reached[left.numpy()[wrong]] = True
            return {}, {"reached": reached, "clean": clean, "queries": queries}

        return self.store.once(about, compute).arrays


def noise(ball: Ball, ids: Sequence[str], shape: Sequence[int]) -> torch.Tensor:
    """Random changes of exactly the ball's size: signs under Linf, a direction under L2."""
    if isinstance(ball, Linf):
        return ball.eps * mr.seeds.signs(0, "noise", ids, shape)
    return ball.eps * ball.at_edge(mr.seeds.normal(0, "noise", ids, shape))


# -- what is printed -----------------------------------------------------------------------------------------


def share(hits: np.ndarray, owners: np.ndarray | None) -> str:
    e: Estimate = stats.proportion(hits, owners)
    return f"{e.value:.1%} ({e.low:.1%} to {e.high:.1%})"


def size_of(ball: Ball) -> str:
    return f"{float(ball.eps) * 255:.3g}/255" if isinstance(ball, Linf) else f"L2 {float(ball.eps):g}"


def table(title: str, head: Sequence[str], lines: Iterable[Sequence[str]]) -> None:
    print(f"\n{title}\n\n| {' | '.join(head)} |\n{'|---' * len(head)}|")
    for line in lines:
        print(f"| {' | '.join(line)} |", flush=True)


def asked(queries: int, ball: Ball, side: int) -> list[Attack]:
    """The attacks without gradients at that budget."""
    few: list[Attack] = [Square(queries), SimBA(queries, frequencies=side), CosineCMAES(queries)]
    if not isinstance(ball, Linf) or queries < 200:
        return few
    return [*few, SimBA(queries), CosinePSO(queries), GenAttack(queries)]


def queries(study: Study) -> None:
    """Success against queries, all attacks side by side, beside random noise asked as often."""
    for name, (_, title) in SETS.items():
        budget, n = QUERIES[name], N
        counts = [c for c in COUNTS if c <= budget]
        for ball in SIZES[name]:
            chance = study.noise(name, n, ball, TRIES)
            head = ["attack", *(f"{c} queries" for c in counts), "median queries"]
            right = int((~chance["clean"]).sum())
            owners = groups(study.subject(name, n).sample)
            found = tried(study, name, n, ball, budget)
            lines = [query_line(label, one, owners, counts, budget) for label, one in found]
            lines.append(query_line("random noise", chance, owners, counts, TRIES))
            table(f"**{title}, {size_of(ball)}**: share fooled of {right} images read correctly", head, lines)


def tried(study: Study, name: str, n: int, ball: Ball, budget: int) -> list[tuple[str, dict[str, np.ndarray]]]:
    """Each attack's name, and what it did."""
    side = 28 if name == "chest" else study.subject(name, n).sample.size
    found = [(named(a), study.attacked(name, n, a, ball)) for a in asked(budget, ball, side)]
    if isinstance(ball, Linf):
        for pixels in (1, 5) if budget >= 200 else (5,):
            label = f"{pixels} pixel{'s' * (pixels > 1)}, any value"
            found.append((label, study.attacked(name, n, OnePixel(budget, pixels=pixels), Linf(1.0))))
    return found


def query_line(
    label: str, found: dict[str, np.ndarray], owners: np.ndarray | None, counts: Sequence[int], budget: int
) -> list[str]:
    mine = ~found["clean"]
    spent = np.where(found["reached"], found["queries"], np.inf)[mine]
    who = None if owners is None else owners[mine]
    shown = [f"{v:.0f}" if np.isfinite(v) else f"> {budget}" for v in stats.median(spent)[:3]]
    shares = [share(spent <= c, who) if c <= budget else "–" for c in counts]
    return [label, *shares, f"{shown[0]} ({shown[1]} to {shown[2]})"]


def named(attack: Attack) -> str:
    if isinstance(attack, SimBA):
        return f"SimBA ({'cosines' if attack.frequencies else 'pixels'})"
    return attack.title


def auto(study: Study) -> None:
    """Accuracy under auto beside the worst of the four classic attacks, what it cost and which member it was."""

    def lines() -> Iterable[list[str]]:
        for name, (_, title) in SETS.items():
            n, owners = N, groups(study.subject(name, N).sample)
            for ball in AUTO_SIZES[name]:
                found = study.attacked(name, n, Auto(), ball)
                classic = [study.attacked(name, n, a, ball)["reached"] for a in (FGSM(), BIM(), PGD(), CWLinf())]
                worst = np.logical_or.reduce(classic)
                by = [f"{m} {int((found['by'] == k).sum())}" for k, m in enumerate(Auto.members)]
                yield [
                    title,
                    size_of(ball),
                    str(n),
                    share(~found["reached"], owners),
                    share(~worst, owners),
                    str(int((worst & ~found["reached"]).sum())),
                    ", ".join(by),
                    f"{found['gradients'].mean():.0f}",
                    f"{found['forwards'].mean():.0f}",
                ]

    head = (
        "set",
        "size",
        "n",
        "accuracy under auto",
        "worst of FGSM, BIM, PGD, CW",
        "broken by those alone",
        "broken by",
        "gradients an image",
        "forward passes",
    )
    table("**Auto**", head, lines())


def transfer(study: Study) -> None:
    """PGD made on a surrogate and replayed, beside PGD on the classifier itself and noise of the same size."""

    def lines() -> Iterable[list[str]]:
        for surrogate in ("chest_small", "chest_scratch"):
            theirs = study.subject(surrogate, N).classifier
            for ball in (Linf(1 / 255), Linf(2 / 255), Linf(4 / 255), Linf(8 / 255)):
                found = study.attacked("chest", N, Transfer(theirs, PGD()), ball, surrogate)
                own = study.attacked("chest", N, PGD(), ball)
                chance = study.noise("chest", N, ball, 1)
                mine, owners = ~found["clean"], groups(study.subject("chest", N).sample)
                who = None if owners is None else owners[mine]
                yield [
                    surrogate,
                    size_of(ball),
                    share(found["reached"][mine], who),
                    share(own["reached"][mine], who),
                    share(chance["reached"][mine], who),
                ]

    head = ("surrogate", "size", "fooled by transfer", "by PGD on the classifier itself", "by random noise")
    right = int((~study.noise("chest", N, Linf(1 / 255), 1)["clean"]).sum())
    table(f"**Transfer to {SETS['chest'][1]}**, n = {right} images read correctly", head, lines())


PARTS: dict[str, Callable[[Study], None]] = {"auto": auto, "queries": queries, "transfer": transfer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", type=one_of(PARTS), default=list(PARTS))
    parser.add_argument("--sets", nargs="*", type=one_of(SETS), default=list(SETS))
    given = parser.parse_args()
    for name in set(SETS) - set(given.sets):
        del SETS[name]
    study = Study(given.data, given.out)
    for part in given.parts:
        PARTS[part](study)


if __name__ == "__main__":
    main()
