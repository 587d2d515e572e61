"""Are large networks, fine-tuned ones and those of many classes more fragile? Ma et al. 2020, on many networks.

    python studies/over_parameterisation.py DATA OUT [PART …]

DATA is a folder with chest_xray/, fundus/, skin/ (tables labels.csv), pneumoniamnist.npz and weights/; OUT takes one
folder a network and the cells, so that a killed study goes on. PART: size, start, classes; all by default.
Every network of a part learns from the same training images with the same recipe. "matched" networks are those of the
epoch whose validation balanced accuracy is nearest to the part's target.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import medrobust as mr
from medrobust.data import Dataset
from medrobust.studies.networks import trained

SIZES = {
    **{f"small_cnn:width={w}": 5 for w in (2, 4, 8, 16, 32, 64)},
    "small_cnn:width=128": 3,
    **{f"small_cnn:width={w}:depth={d}": 5 for w, d in ((8, 4), (16, 2), (16, 4), (8, 8))},
}
"""Architecture to the number of seeds."""
MOBILENET = {"mean": (0.5,), "std": (0.5,)}
WEIGHTS = "{}/weights/mobilenetv2_100_imagenet.safetensors"
TARGETS = {"pneumonia": 0.87, "chest32": 0.85, "chest64": 0.85}
FUNDUS = ("normal", "diabetic_retinopathy", "cataract", "glaucoma")
SKIN = ("nv", "mel", "bcc", "akiec", "bkl")
RARE = ("df", "vasc")


@dataclass(frozen=True)
class Network:
    """One training. data: a name of ``images``; classes: those it is to tell apart, all of them by default."""

    part: str
    data: str
    model: str
    seed: int
    variant: str
    each: int
    """Training images a class."""
    classes: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        words = (self.part, self.data, self.model.replace(":", "_"), "-".join(self.classes), self.variant, self.seed)
        return "/".join(str(w) for w in words if w != "")


def networks(part: str) -> Iterator[Network]:
    if part == "size":
        for data in ("pneumonia", "chest32"):
            for model, seeds in SIZES.items():
                for seed in range(seeds):
                    for variant, target in (("matched", TARGETS[data]), ("best", None)):
                        options = {"epochs": 12, "patience": None, "target": target}
                        if data == "pneumonia" or "128" not in model:
                            yield Network(part, data, model, seed, variant, 400, (), options)
    if part == "start":
        for seed in range(5):
            for variant, epochs in (("fine-tuned", 4), ("from scratch", 14)):
                options = {"epochs": epochs, "patience": None, "target": TARGETS["chest64"]}
                yield Network(part, "chest64", "mobilenetv2_100", seed, variant, 400, (), options)
    if part == "classes":
        options = {"epochs": 4, "patience": None}
        for k in (2, 3, 4):
            for classes in itertools.combinations(FUNDUS, k):
                for seed in range(3 if k == 4 else 1):
                    yield Network(part, "fundus64", "mobilenetv2_100", seed, "fine-tuned", 300, classes, options)
        options = {"epochs": 6, "patience": None}
        for k in (2, 3, 4, 5):
            # every second set of classes of each size, so that each class is in as many of them
            for classes in list(itertools.combinations(SKIN, k))[:: 2 if k < 4 else 1]:
                for seed in range(3 if k == 5 else 1):
                    yield Network(part, "skin64", "mobilenetv2_100", seed, "fine-tuned", 70, classes, options)
        for seed in range(3):
            yield Network(part, "skin64", "mobilenetv2_100", seed, "fine-tuned", 70, (*SKIN, *RARE), options)


@cache
def images(name: str, root: Path) -> Dataset:
    if name == "pneumonia":
        return mr.data.load(f"medmnist:{root}/pneumoniamnist.npz")
    folder, size = {"chest": "chest_xray"}.get(name[:-2], name[:-2]), int(name[-2:])
    label = "diagnosis" if folder == "skin" else "label"
    return mr.data.load(f"csv:{root}/{folder}/labels.csv", size=size, label=label)


def seen(network: Network, root: Path) -> Dataset:
    """What it learns from and is tested on."""
    data = images(network.data, root)
    if network.classes:
        data = data.of_classes(network.classes)
    return data.train_on(network.each, 0)


def make(network: Network, root: Path, out: Path) -> mr.Classifier:
    options = dict(network.options)
    if network.model.startswith("mobilenet"):
        options |= MOBILENET
        if network.variant != "from scratch":
            options["pretrained"] = WEIGHTS.format(root)
    data = seen(network, root)
    return trained(out / network.name, data, network.model, seed=network.seed, device="cpu", **options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("parts", nargs="*", default=["size", "start", "classes"])
    asked = parser.parse_args()
    for part in asked.parts:
        for network in networks(part):
            print(network.name, file=sys.stderr, flush=True)
            make(network, asked.data, asked.out)


if __name__ == "__main__":
    main()
