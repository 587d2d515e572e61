"""phantom:chest|fundus|skin|chest-findings[@SIZE][:n=N]: procedural images, so that everything runs without a
download.

Image i of a modality is a pure function of (modality, seed, i, size). Everything that both classes share
(anatomy, pose, exposure, device) is drawn before the lesion and does not know the class, so image i with and
without its lesion differ in the lesion only. Shapes live in coordinates from -1 to 1, x to the right and y
down, so that another size shows the same scene; only the detector's noise belongs to the pixels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from medrobust import seeds
from medrobust.data.dataset import Dataset, assemble
from medrobust.data.decode import luminance
from medrobust.data.phantom_chest import chest
from medrobust.data.phantom_findings import FINDINGS, SETS, findings
from medrobust.data.phantom_fundus import fundus
from medrobust.data.phantom_skin import skin
from medrobust.data.source import Listing, Request, Source
from medrobust.errors import InputError

VERSION = 1
"""Counts up when the images change, so that results of other images are never taken for these."""

CYCLE = ("train",) * 12 + ("val",) * 2 + ("test",) * 4
"""The split of image i is CYCLE[i % 18], its class i % 2 (its findings SETS[i % 20]): the same for every n."""

DEFAULT_N = 1800
DEFAULT_SIZE = 64

Present = bool | Sequence[bool]
"""Whether an image is diseased; of several findings, which of them it has."""
Painter = Callable[[np.random.Generator, np.random.Generator, int, Any], tuple[np.ndarray, np.ndarray]]
"""(shared randomness, randomness of the lesion, size, Present) -> image in [0, 1] (h, w[, 3]), mask (h, w), or one
a finding (k, h, w)."""


class Modality(NamedTuple):
    """sets: where an image has several findings, those of image i are sets[i % len(sets)]."""

    paint: Painter
    classes: tuple[str, ...]
    channels: int
    sets: tuple[tuple[str, ...], ...] | None = None

    def present(self, index: int) -> Present:
        """What image ``index`` has."""
        if self.sets is None:
            return self.classes[index % 2] not in HEALTHY
        return tuple(name in self.sets[index % len(self.sets)] for name in self.classes)


MODALITIES = {
    "chest": Modality(chest, ("normal", "pneumonia"), 1),
    "fundus": Modality(fundus, ("diabetic retinopathy", "normal"), 3),
    "skin": Modality(skin, ("benign", "malignant"), 3),
    "chest-findings": Modality(findings, tuple(FINDINGS), 1, SETS),
}
HEALTHY = ("normal", "benign")


def render(modality: str, seed: int, index: int, size: int, present: Present) -> tuple[np.ndarray, np.ndarray]:
    """uint8 image (size, size[, 3]) and float32 mask in [0, 1], (size, size) or one a finding (k, size, size)."""
    shared = seeds.generator(seed, f"phantom-{modality}", index)
    lesion = seeds.generator(seed, f"phantom-{modality}-lesion", index)
    image, mask = MODALITIES[modality].paint(shared, lesion, size, present)
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8), mask.astype(np.float32)


class PhantomSource(Source):
    """Images 0 … n-1 of one modality, rendered when they are read."""

    bits = 8

    def __init__(self, modality: str, seed: int, size: int, grey: bool) -> None:
        super().__init__()
        self.modality, self.seed, self.size, self.grey = modality, seed, size, grey
        self.channels = 1 if grey else MODALITIES[modality].channels

    def _render(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        return render(self.modality, self.seed, row, self.size, MODALITIES[self.modality].present(row))

    def read(self, row: int) -> np.ndarray:
        image, _ = self._render(row)
        return luminance(image) if self.grey and image.ndim == 3 else image

    def mask(self, row: int, finding: str | None = None) -> np.ndarray | None:
        classes, mask = MODALITIES[self.modality].classes, self._render(row)[1]
        if mask.ndim == 2 or finding is None:
            return mask if mask.ndim == 2 else np.asarray(mask.max(0))
        return mask[classes.index(finding)] if finding in classes else None

    def fingerprint(self, row: int) -> str:
        return f"phantom {VERSION} {self.modality} {self.seed} {row} {self.size}"


def open_phantom(where: str, request: Request) -> Dataset:
    """The Dataset of ``phantom:where``."""
    match = re.fullmatch(r"(?P<name>[a-z-]+)(@(?P<size>\d{1,9}))?(:n=(?P<n>\d{1,9}))?", where)
    if match is None or match["name"] not in MODALITIES:
        raise InputError(
            f"unknown phantom {where!r}; choose {', '.join(MODALITIES)}, as in chest, chest@224, chest@64:n=600"
        )
    name, size, n = match["name"], int(match["size"] or request.size or DEFAULT_SIZE), int(match["n"] or DEFAULT_N)
    if match["size"] and request.size not in (None, size):
        raise InputError(f"phantom:{where} asks for {size} pixels and size= for {request.size}; give one of them")
    if not 16 <= size <= 2048:
        raise InputError(f"a phantom has 16 to 2048 pixels a side, got {size}")
    if n < len(CYCLE):
        raise InputError(f"a phantom set has at least {len(CYCLE)} images, so that no split is empty; got n={n}")
    modality = MODALITIES[name]
    classes, present = modality.classes, [modality.present(row) for row in range(n)]
    listing = Listing(
        ids=[f"phantom-{name}-{row:05d}" for row in range(n)],
        labels=[classes[row % 2] for row in range(n)] if modality.sets is None else np.array(present, np.int64),
        classes=classes,
        splits=[CYCLE[row % len(CYCLE)] for row in range(n)],
        notes=(f"The images are synthetic ({name} phantom, generator {VERSION}, seed {request.seed}).",),
    )
    source = PhantomSource(name, request.seed, size, request.channels == 1)
    return assemble(f"phantom:{name}@{size}", source, listing, request)
