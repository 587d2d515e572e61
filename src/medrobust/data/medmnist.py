"""medmnist:FILE.npz, or by name through the ``medmnist`` package (Yang et al. 2023, doi:10.1038/s41597-022-01721-8).

A file holds train_images, train_labels, val_… and test_…, or some of these parts: images uint8 (n, h, w) or
(n, h, w, 3), labels (n, 1), or (n, k) of 0 and 1 (-1 or NaN where unknown) of k findings.
"""

from __future__ import annotations

import hashlib
import math
import shutil
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

import numpy as np

import medrobust.data.npz as npz
from medrobust import limits
from medrobust.data.dataset import Dataset, assemble
from medrobust.data.decode import luminance, resize
from medrobust.data.medmnist_classes import CLASSES, FINDINGS
from medrobust.data.source import Listing, Request, Source
from medrobust.data.splits import SPLITS
from medrobust.data.words import quoted
from medrobust.errors import InputError
from medrobust.images import UNKNOWN

SIDES = (28, 64, 128, 224)
LAYOUT = "train_images (n, h, w) or (n, h, w, 3), train_labels (n, 1) or (n, findings), and the same for val and test"


def open_medmnist(where: str, request: Request) -> Dataset:
    """The Dataset of ``medmnist:where``; where is FILE.npz or NAME[@28|64|128|224]."""
    if where.lower().endswith(".npz"):
        file = Path(where).expanduser()
        if not file.is_file():
            raise InputError(f"there is no file {where}; medmnist: needs the path of an .npz file or a name")
        return read_npz(file, file.stem.split("_")[0].lower(), file.name, request)
    name, _, side = where.partition("@")
    name = name.lower()
    members = sorted((*CLASSES, *FINDINGS))
    if name not in members:
        raise InputError(f"MedMNIST has no member {name!r}; choose one of {', '.join(members)}, or FILE.npz")
    if side and side not in map(str, SIDES):
        raise InputError(f"MedMNIST comes at {', '.join(map(str, SIDES))} pixels, not at {side}; write {name}@64")
    return read_npz(fetch(name, int(side or 28)), name, f"{name}@{side or 28}", request)


def fetch(name: str, side: int) -> Path:
    """The .npz of a member, downloaded by the ``medmnist`` package on its first use."""
    try:
        import medmnist  # only here: its import makes a folder in the home directory
    except ImportError:
        raise InputError(
            f"medmnist:{name} needs the medmnist package: pip install 'medrobust[medmnist]', "
            f"or give the file: medmnist:PATH/{name}.npz"
        ) from None
    from torchvision.datasets.utils import download_url

    info, suffix = medmnist.INFO[name], "" if side == 28 else f"_{side}"
    file = Path(medmnist.info.DEFAULT_ROOT) / f"{name}{suffix}.npz"
    try:  # as the package's own download does, which would also load the arrays into memory
        download_url(info[f"url{suffix}"], str(file.parent), file.name, info[f"MD5{suffix}"])
    except Exception as error:  # a closed network, a full disk and a wrong checksum all arrive differently
        raise InputError(
            f"{name} could not be downloaded ({' '.join(str(error).split())}); download it by hand from "
            f"https://medmnist.com and give the file: medmnist:PATH/{file.name}"
        ) from error
    return file


class ArraySource(Source):
    """Rows of arrays (n, h, w[, 3]), one after the other, resized where asked for."""

    bits = 8

    def __init__(self, parts: list[np.ndarray], size: int, grey: bool) -> None:
        super().__init__()
        self.parts, self.size, self._grey = parts, size, grey
        self._starts = np.cumsum([0, *(len(part) for part in parts)])
        self._stored_grey = _grey_arrays(parts)
        self.channels = 1 if grey or self._stored_grey else 3

    def stored(self, row: int) -> np.ndarray:
        """One image as it is in the file."""
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return np.asarray(self.parts[part][row - self._starts[part]])

    def read(self, row: int) -> np.ndarray:
        pixels = self.stored(row)
        if pixels.ndim == 3 and self._stored_grey:
            pixels = np.ascontiguousarray(pixels[..., 0])
        elif pixels.ndim == 3 and self._grey:
            pixels = luminance(pixels)
        return resize(pixels, self.size)

    def fingerprint(self, row: int) -> str:
        return self._hashes[row]

    @cached_property
    def _hashes(self) -> list[str]:
        return [hashlib.sha256(image.tobytes()).hexdigest() for part in self.parts for image in part]


def read_npz(file: Path, member: str, name: str, request: Request) -> Dataset:
    """The Dataset of an .npz file in MedMNIST's layout; ids are train-0, train-1, …"""
    wanted = [f"{side}_{what}" for side in SPLITS for what in ("images", "labels")]
    arrays, names, scratch = npz.read(file, wanted)
    with ExitStack() as on_failure:
        if scratch is not None:
            on_failure.callback(shutil.rmtree, scratch, ignore_errors=True)
        dataset = _dataset(arrays, names, member, name, request, scratch)
        on_failure.pop_all()
    return dataset


def _dataset(
    arrays: dict[str, np.ndarray], names: list[str], member: str, name: str, request: Request, scratch: Path | None
) -> Dataset:
    images, targets, splits, ids, notes = [], {}, [], [], []
    for side in SPLITS:
        if f"{side}_images" not in arrays or f"{side}_labels" not in arrays:
            if (f"{side}_images" in arrays) != (f"{side}_labels" in arrays):
                notes.append(f"The {side} part has images or labels only and was passed over.")
            continue
        pixels, targets[side] = arrays[f"{side}_images"], np.asarray(arrays[f"{side}_labels"])
        _check(name, side, pixels, targets[side])
        images.append(pixels)
        splits += [side] * len(pixels)
        ids += [f"{side}-{row}" for row in range(len(pixels))]
    if not images or len({part.shape[1:] for part in images}) > 1:
        shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
        held = shapes or ", ".join(quoted(key) for key in names[:5]) or "nothing"
        raise InputError(f"{name} is not laid out as MedMNIST is: it has {held}; needed are {LAYOUT}")
    several = {part.shape[1] if part.ndim == 2 else 1 for part in targets.values()}
    if len(several) > 1:
        raise InputError(f"the parts of {name} have labels of {', '.join(map(str, sorted(several)))} findings")
    classes, labels = (_findings if max(several) > 1 else _classes)(name, member, targets, notes)
    native = images[0].shape[1]
    source = ArraySource(images, request.size or native, request.channels == 1)
    if scratch is not None:
        weakref.finalize(source, shutil.rmtree, scratch, ignore_errors=True)
    listing = Listing(ids, labels, classes, splits, notes=(*notes, *_notes(source, native)))
    return assemble(name, source, listing, request)


def _classes(
    name: str, member: str, targets: Mapping[str, np.ndarray], notes: list[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Names of the classes, and that of each image; "" where its label is nan."""
    labels = [number for side, part in targets.items() for number in _numbers(name, side, part, notes)]
    numbers = [number for number in labels if number is not None]
    count = max(numbers, default=0) + 1
    classes = CLASSES.get(member, ())
    if not classes or count > len(classes):
        limits.check(limits.CLASSES, count, f"the labels of {name} go up to {count - 1}; it")
        if classes:
            notes.append(f"{name} has labels up to {count - 1}, more than {member} has classes; they are numbered.")
        classes = tuple(f"class {number}" for number in range(count))
    if len(set(numbers)) < 2:
        raise InputError(f"{name} must have images of at least two classes, found {len(set(numbers))}")
    return classes, ["" if number is None else classes[number] for number in labels]


def _findings(
    name: str, member: str, targets: Mapping[str, np.ndarray], notes: list[str]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the findings, and int64 (n, k) of 0, 1 and UNKNOWN."""
    parts = []
    for side, part in targets.items():
        if part.dtype.kind not in "iufb":
            raise InputError(f"{side}_labels of {name} are {part.dtype}; 0 and 1 are needed, -1 where unknown")
        values = np.where(np.isnan(part), UNKNOWN, part) if part.dtype.kind == "f" else part
        odd = values[~np.isin(values, (0, 1, UNKNOWN))]
        if odd.size:
            raise InputError(f"{side}_labels of {name} hold {odd[0]}; 0 and 1 are needed, -1 where unknown")
        parts.append(values.astype(np.int64))
    count = parts[0].shape[1]
    classes = FINDINGS.get(member, ())
    if len(classes) != count:
        if classes:
            notes.append(f"{name} has labels of {count} findings, {member} has {len(classes)}; they are numbered.")
        classes = tuple(f"finding {number}" for number in range(count))
    return classes, np.concatenate(parts)


def _check(name: str, side: str, pixels: np.ndarray, targets: np.ndarray) -> None:
    shape = pixels.shape
    square = pixels.ndim in (3, 4) and shape[1] == shape[2] > 0 and (pixels.ndim == 3 or shape[3] == 3)
    if not square or pixels.dtype != np.uint8:
        raise InputError(
            f"{side}_images of {name} is {pixels.dtype} {shape}; needed is uint8 (n, h, h) or (n, h, h, 3)"
        )
    limits.check(limits.IMAGE_PIXELS, shape[1] * shape[2], f"an image of {name}")
    rows = targets.ndim == 2 and targets.shape[0] == len(pixels) and targets.shape[1] > 0
    if not rows and targets.size != len(pixels):
        raise InputError(
            f"{name} has {len(pixels)} {side} images and labels {targets.shape}; one label, or one row of findings, an "
            "image is needed"
        )


def _numbers(name: str, side: str, targets: np.ndarray, notes: list[str]) -> list[int | None]:
    """Class numbers of any numeric type without rounding or wrapping; None for nan. Notes on what was no integer."""
    if targets.dtype.kind not in "iufb":
        raise InputError(f"{side}_labels of {name} are {targets.dtype}; whole numbers from 0 are needed")
    values = targets.reshape(-1).tolist()  # Python's own numbers: uint64 does not wrap in them
    odd = [v for v in values if v == v and (v in (math.inf, -math.inf) or v != int(v) or v < 0)]
    if odd:
        raise InputError(f"{side}_labels of {name} hold {odd[0]}; whole numbers from 0 are needed")
    if values and targets.dtype.kind in "fb":
        notes.append(f"The {len(values)} {side} labels are {targets.dtype} and were read as whole numbers.")
    return [None if v != v else int(v) for v in values]


def _grey_arrays(parts: list[np.ndarray]) -> bool:
    """Whether all images have one channel, or three equal ones; stops at the first that does not."""
    if parts[0].ndim == 3:
        return True
    for part in parts:
        for start in range(0, len(part), 256):
            block = np.asarray(part[start : start + 256])
            if (block[..., 0] != block[..., 1]).any() or (block[..., 1] != block[..., 2]).any():
                return False
    return True


def _notes(source: ArraySource, native: int) -> tuple[str, ...]:
    if source.size == native:
        return ()
    return (f"The images are {native} x {native} in the file and were resized to {source.size} x {source.size}.",)
