"""The images of a universal perturbation: those it is made from and those it is judged on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from medrobust import data as data_room
from medrobust.data import Dataset
from medrobust.data.splits import assign_groups
from medrobust.errors import InputError
from medrobust.experiments.images import announce
from medrobust.experiments.system import System, groups
from medrobust.images import Lazy
from medrobust.progress import NoProgress, Progress
from medrobust.training import Pixels


@dataclass(frozen=True)
class CraftSplit:
    """The images it may be made from, those it may be judged on, and in words where the first come from."""

    craft: Dataset
    judged: Dataset
    origin: str


def craft_split(system: System, seed: int) -> CraftSplit | None:
    """Training images against test images; where all images are test images, one half of them against the other.

    None where there are too few images for both.
    """
    data, test = system.data, system.test
    unseen = set(test.ids)
    others = [i for i, name in enumerate(data.ids) if name not in unseen]
    if others:
        train = [i for i in others if data.split_of[i] == "train"]
        return CraftSplit(data.select(train or others), test, "training images" if train else "validation images")
    owners = groups(test)
    half = assign_groups(list(test.ids if owners is None else owners), test.labels, {"craft": 0.5, "judge": 0.5}, seed)
    parts = [test.select(np.flatnonzero(half == name)) for name in ("craft", "judge")]
    if not all(len(p) for p in parts):
        return None
    return CraftSplit(parts[0], parts[1], "test images that it is not judged on")


def other_images(spec: str, data: Dataset, seed: int, progress: Progress) -> Dataset:
    """Images of another kind, as large as those of ``data``; spec as ``data.load`` reads it."""
    try:
        other = data_room.load(spec, size=data.size, channels=data.channels, seed=seed)
    except InputError as error:
        raise InputError(f"--source {spec}: {error}") from error
    announce(other, progress)
    return other


def decoded(part: Dataset) -> Lazy:
    """The same images, decoded once: methods take several passes."""
    return Pixels(part, NoProgress(), "images")


def pixels_digest(images: Lazy) -> str:
    """sha256 of their pixels."""
    digest = hashlib.sha256()
    for i in range(len(images)):
        digest.update(images.images([i]).numpy().tobytes())
    return digest.hexdigest()
