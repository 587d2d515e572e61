"""Patches, rotations and smooth changes of intensity beside their controls and beside small changes of every pixel.

    python benchmarks/beyond.py "chest X-ray, 64 px" plain runs/chest/model csv:chest_xray/labels.csv OUT.csv --size 64
    python benchmarks/beyond.py "chest X-ray, 64 px" plain runs/chest/model csv:chest_xray/labels.csv --size 64 --peers

Of the test images that a network saved by medrobust reads correctly, the shares that each change of CHANGES turns, its
controls, and PGD and noise at 1/255 and 4/255, judged; appended to OUT.csv. --peers: instead, the same ranges in
foolbox and ART, with forward and backward passes an image and seconds on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust import seeds, stats
from medrobust.attacks import CHANGES, PGD, PatchAnywhere, Spatial, worst_change
from medrobust.attacks.patch import Patch
from medrobust.data import Dataset
from medrobust.experiments.changes import changed
from medrobust.experiments.system import groups

FIELDS = ("set", "network", "change", "turned", "random", "noise patch", "bright patch", "n", "passes an image")
FURTHER = {"patch, 5 %": Patch(side=0.05), "patch, 20 %": Patch(side=0.2), "spatial, black": Spatial(fill="black")}
"""Beside those that an audit has."""


def text(share: stats.Estimate) -> str:
    return f"{share.value:.1%} ({share.low:.1%} to {share.high:.1%})"


def of_changes(clf: mr.Classifier, part: Dataset) -> Iterator[dict[str, str]]:
    """A line a change."""
    for name, change in ({name: make() for name, make in CHANGES.items()} | FURTHER).items():
        _, arrays = changed(change, clf, clf, part, 0, lambda _: None)
        shares = {"turned": arrays["reached"]} | {k[8:]: v for k, v in arrays.items() if k.startswith("control.")}
        passes = f"{arrays['passes'].mean():.0f}"
        yield {"change": name, "passes an image": passes} | {k: text(_of(v, part)) for k, v in shares.items()}


def of_pixels(clf: mr.Classifier, part: Dataset) -> Iterator[dict[str, str]]:
    """PGD beside noise of the same size."""
    (images, labels), goal = part.tensors(), mr.Untargeted(torch.from_numpy(part.labels))
    for grey in (1, 4):
        ball = mr.Linf(grey / 255)
        attacked = PGD(steps=40)(clf, images, goal, ball, ids=part.ids)
        noise = images + ball.eps * seeds.signs(0, "noise/sign", part.ids, images.shape[1:])
        wrong = [
            mr.judge(clf, images, attacked, goal, ball).reached.numpy(),
            (clf.predict(noise.clamp(0, 1)) != labels).numpy(),
        ]
        turned, random = (text(_of(each, part)) for each in wrong)
        yield {"change": f"Linf {grey}/255", "turned": turned, "random": random}


def _of(hits: np.ndarray, part: Dataset) -> stats.Estimate:
    return stats.proportion(hits, groups(part))


class Counted(nn.Module):
    """Logits of a classifier; counts the rows of its forward and backward passes."""

    def __init__(self, clf: mr.Classifier) -> None:
        super().__init__()
        self.clf, self.net, self.rows = clf, clf.net, [0, 0]

    def forward(self, images: Tensor) -> Tensor:
        self.rows[0] += len(images)
        logits = self.clf(images)
        if logits.requires_grad:
            logits.register_hook(lambda g: self.rows.__setitem__(1, self.rows[1] + len(g)))
        return logits


def peers(clf: mr.Classifier, images: Tensor, labels: Tensor, goal: mr.Untargeted) -> Iterator[dict[str, str]]:
    """Equal ranges: 15 degrees and 10 % of the side, black outside, no scale; a patch of 10 % of the side."""
    import foolbox
    from art.attacks.evasion import AdversarialPatchPyTorch, SpatialTransformation
    from art.estimators.classification import PyTorchClassifier

    side, (channels, height, width) = images.shape[-1], images.shape[1:]
    counted = Counted(clf)
    shift, ours = round(0.1 * side), Spatial(scale=0, shift=round(0.1 * side) / side, fill="black")
    fmodel = foolbox.PyTorchModel(counted.eval(), bounds=(0, 1))
    art = PyTorchClassifier(
        counted, nn.CrossEntropyLoss(), (channels, height, width), len(clf.classes), clip_values=(0, 1)
    )
    square = max(1, round(0.1 * min(height, width)))
    place = Patch().corner(images, torch.tensor([0.05, 0.05]))

    def foolbox_spatial() -> Tensor:
        attack = foolbox.attacks.SpatialAttack(shift, 15, num_translations=5, num_rotations=5)
        return attack(fmodel, images, labels)[0]

    def art_spatial() -> Tensor:
        attack = SpatialTransformation(art, 100 * shift / side, 5, 15, 5, verbose=False)
        return torch.from_numpy(attack.generate(images.numpy(), labels.numpy()))

    def art_patch() -> Tensor:
        out = []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            attack = AdversarialPatchPyTorch(
                art,
                rotation_max=0,
                scale_min=1.0,
                scale_max=1.0,
                learning_rate=0.1,
                optimizer="pgd",  # Adam and other rates turn fewer
                max_iter=20,
                batch_size=1,
                patch_shape=(channels, square, square),
                patch_location=place,
                patch_type="square",
                targeted=False,
                verbose=False,
            )
            patch, _ = attack.generate(image.numpy(), label.numpy())
            one = image.clone()
            top, left = place
            one[..., top : top + square, left : left + square] = torch.from_numpy(np.clip(patch, 0, 1))
            out.append(one)
        return torch.cat(out)

    def own(change: Spatial | Patch) -> Callable[[], Tensor]:
        def run() -> Tensor:
            found = worst_change(change, clf, images, goal)
            counted.rows = [int((found.forwards + found.gradients).sum()), int(found.gradients.sum())]
            return found.images

        return run

    worst_change(Spatial(steps=1), clf, images[:2], goal.take(torch.arange(2)))  # folds the network
    runs: dict[str, Callable[[], Tensor]] = {
        "spatial: foolbox SpatialAttack, 5 x 5 x 5": foolbox_spatial,
        "spatial: ART SpatialTransformation, 5 x 5 x 5": art_spatial,
        "spatial: medrobust": own(ours),
        "spatial: medrobust, no ascent": own(Spatial(scale=0, shift=ours.shift, fill="black", steps=0)),
        "patch: ART AdversarialPatch, 20 steps an image": art_patch,
        "patch: medrobust": own(Patch()),
        "patch: medrobust, worst of 25 places": own(PatchAnywhere()),
    }
    for name, attack in runs.items():
        counted.rows = [0, 0]
        began = time.perf_counter()
        with contextlib.redirect_stdout(None):
            made = attack()
        seconds = time.perf_counter() - began
        wrong = mr.judge(clf, images, made.clamp(0, 1), goal, mr.Linf(1.0)).reached.double().mean().item()
        passes = " + ".join(f"{rows / len(images):.0f}" for rows in counted.rows)
        yield {"change": name, "turned": f"{wrong:.1%}", "passes an image": passes, "n": f"{seconds:.2f} s"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    for name in ("set", "network", "model", "data"):
        parser.add_argument(name)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--size", type=int)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    clf = mr.Classifier.load(options.model)
    data = mr.data.load(options.data, size=options.size).for_network(clf).split("test").sample(options.images, 0)
    images, labels = data.tensors()
    part = data.select(np.flatnonzero((clf.predict(images) == labels).numpy()))
    if options.peers:
        images, labels = part.tensors()
        for line in peers(clf, images, labels, mr.Untargeted(labels)):
            print(" | ".join(line.values()), flush=True)
        return
    lines = []
    for line in (*of_pixels(clf, part), *of_changes(clf, part)):
        lines.append({"set": options.set, "network": options.network, "n": str(len(part)), **line})
        print(" | ".join(lines[-1].values()), flush=True)
    if options.out is not None:
        new = not options.out.exists()
        with options.out.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, FIELDS, restval="–")
            if new:
                writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
