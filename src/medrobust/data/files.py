"""Images in files: each is decoded once at load, so that a damaged one is found before the work starts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import UnidentifiedImageError

from medrobust import limits
from medrobust.data.dataset import Dataset, assemble, check
from medrobust.data.decode import CHANGES, decode, upright_size
from medrobust.data.source import LeftOut, Listing, Request, Source
from medrobust.errors import InputError
from medrobust.formats import TITLES

THREADS = 2
CHUNK = 256

FITTED = {
    "stretch": "stretched, so that nothing at the border is cut off",
    "crop": "cropped to the square in their middle; what lies at the border is gone",
    "pad": "padded with black to a square",
}
"""The effect of each fit, for messages."""


class FileInfo(NamedTuple):
    """The result of reading a file. reason: why it cannot be used; "" if it can. changes: names of decode.CHANGES."""

    reason: str
    hash: str = ""
    native: tuple[int, int] = (0, 0)
    shape: tuple[int, ...] = ()
    bits: int = 8
    top: int = 0
    changes: frozenset[str] = frozenset()


class FileSource(Source):
    """Image files, decoded to size x size, or at their own sizes with fit "none"."""

    def __init__(self, files: Sequence[Path], size: int | None, grey: bool, fit: str) -> None:
        super().__init__()
        self.files = list(files)
        self.grey = grey
        self._size, self._fit = size, fit
        self.size, self.channels, self.bits = size or 0, 1, 8
        self.info: list[FileInfo] = []

    def inspect(self, row: int) -> FileInfo:
        """Decode one file whole; keep its pixels while there is room."""
        try:
            data = _bytes(self.files[row])
            if not data:
                return FileInfo("the file is empty")
            image = decode(data, self._size, self.grey, self._fit)
        except UnidentifiedImageError:
            return FileInfo(f"not an image that can be read ({TITLES} are)")
        except Exception as error:  # a decoder raises whatever it likes on damaged bytes
            return FileInfo(" ".join(str(error).split())[:200] or type(error).__name__)
        pixels = image.pixels
        self.keep(row, pixels)
        bits = 16 if pixels.dtype == np.uint16 else 8
        digest = hashlib.sha256(data).hexdigest()
        return FileInfo("", digest, image.native, pixels.shape, bits, int(pixels.max()), image.changes)

    def read(self, row: int) -> np.ndarray:
        try:
            return decode(_bytes(self.files[row]), self._size, self.grey, self._fit).pixels
        except Exception as error:
            raise InputError(f"{self.files[row]} was readable at first and is not any more: {error}") from error

    def fingerprint(self, row: int) -> str:
        return self.info[row].hash

    def levels(self, row: int) -> int:
        return (1 << self.info[row].bits) - 1

    def shape(self, row: int) -> tuple[int, int]:
        height, width = self.info[row].shape[:2]
        return height, width


def open_files(name: str, files: Sequence[Path], listing: Listing, request: Request) -> Dataset:
    """The Dataset of image files; unreadable ones are left out, InputError if that is more than half of them."""
    fit = request.fit or "stretch"
    check(name, listing)
    if request.size is None and fit != "none":
        _one_size(name, files, fit)
    source = FileSource(files, request.size, request.channels == 1, fit)
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), CHUNK):  # in pieces, so that Ctrl-C does not wait for all of them
            source.info += pool.map(source.inspect, range(start, min(start + CHUNK, len(files))))
            if request.progress is not None:
                request.progress(len(source.info), len(files))
    left_out = tuple(LeftOut(listing.ids[row], info.reason) for row, info in enumerate(source.info) if info.reason)
    if 2 * len(left_out) > len(files):
        first = left_out[0]
        raise InputError(
            f"{len(left_out)} of the {len(files)} images of {name} cannot be read, first {first.file}: {first.reason}"
        )
    rows = np.array([row for row, info in enumerate(source.info) if not info.reason], dtype=np.int64)
    good = [source.info[row] for row in rows]
    source.size = request.size or max(max(info.shape[:2]) for info in good)
    source.channels = 3 if any(len(info.shape) == 3 for info in good) else 1
    source.bits = max(info.bits for info in good)
    data = assemble(name, source, listing, request, rows, left_out)
    good = [source.info[row] for row in data.rows]
    if fit == "none" or any(info.native[0] != info.native[1] for info in good):
        source.fit = fit
    return _annotate(data, good, request)


def _bytes(file: Path) -> bytes:
    """The bytes of a regular file within limits.IMAGE_BYTES."""
    with open(file, "rb", opener=_opener) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError("not a regular file")
        limits.check(limits.IMAGE_BYTES, status.st_size, "it")
        return stream.read()


def _opener(path: str, flags: int) -> int:
    """Opens without waiting: a named pipe would wait for whoever writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _one_size(name: str, files: Sequence[Path], fit: str) -> None:
    """InputError unless all images have the same size, and a square one unless ``fit`` makes it so; headers only."""
    sizes: Counter[tuple[int, int]] = Counter()
    for file in files:
        try:
            sizes[upright_size(file)] += 1
        except Exception:  # a damaged file is counted and named later, with its reason
            continue
    if not sizes:
        return
    (width, height), count = min(sizes.items(), key=lambda item: (-item[1], item[0]))
    if len(sizes) > 1:
        raise InputError(
            f"the images of {name} differ in size ({len(sizes)} sizes, most often {width} x {height}, "
            f"{count} of {sizes.total()}); choose the side to resize them to, for example size=224"
        )
    if width != height and fit == "stretch":
        raise InputError(
            f"the images of {name} are {width} x {height}, not square; choose the side to resize them to, "
            "for example size=224"
        )


def _annotate(data: Dataset, good: Sequence[FileInfo], request: Request) -> Dataset:
    """Notes on what reading the files did to the pixels, and on images that are there twice."""
    notes = list(data.notes)
    n, side = len(good), data.size
    resized = sum(info.native != (side, side) for info in good)
    if data.fit == "none":
        sizes = Counter(info.native for info in good)
        (width, height), most = min(sizes.items(), key=lambda item: (-item[1], item[0]))
        several = "" if len(sizes) == 1 else f" ({len(sizes)} sizes, most often {width} x {height}, {most} of {n})"
        notes.append(f"The images keep their own size{several or f', {width} x {height}'}.")
    elif resized:
        notes.append(f"{resized} of {n} images were resized to {side} x {side} (bilinear, antialiased).")
    oblong = sum(info.native[0] != info.native[1] for info in good)
    if oblong and data.fit != "none":
        assert data.fit is not None
        others = " or ".join(fit for fit in FITTED if fit != data.fit)
        notes.append(
            f"{oblong} of {n} images are not square and were {FITTED[data.fit]} (fit {data.fit}, not {others})."
        )
    for change, text in CHANGES.items():
        changed = sum(change in info.changes for info in good)
        if changed:
            notes.append(f"{changed} of {n} images {text}.")
    if request.channels == 1 and data.channels == 1:
        notes.append("Colour images, if any, were reduced to grey (ITU-R 601 luma).")
    elif data.channels == 3 and any(len(info.shape) == 2 for info in good):
        notes.append(f"{sum(len(info.shape) == 2 for info in good)} of {n} images are grey, the others colour.")
    if data.bits == 16 and max(info.top for info in good) < 4096:
        notes.append(
            f"The 16-bit images use values up to {max(info.top for info in good)} only and are read as they are, "
            "that is very dark; stretch them to 0 to 65535 before the audit."
        )
    elif data.bits == 16 and any(info.bits == 8 for info in good):
        shallow = sum(info.bits == 8 for info in good)
        notes.append(f"{shallow} of {n} images have 8 bits, the others 16; each keeps its own grey levels.")
    notes += _in_two_splits(data)
    return dataclasses.replace(data, notes=tuple(notes))


def _in_two_splits(data: Dataset) -> list[str]:
    """Sentences on the same file content in two splits (the test then holds training images) or with two labels."""
    splits: dict[str, set[str]] = {}
    labels: dict[str, set[str]] = {}
    for row, side, label in zip(data.rows, data.split_of, data.labels.tolist(), strict=True):
        fingerprint = data.source.fingerprint(int(row))
        splits.setdefault(fingerprint, set()).add(str(side))
        labels.setdefault(fingerprint, set()).add(str(label))
    notes = []
    if both := sum(len(where) > 1 for where in splits.values()):
        notes.append(f"{both} images stand byte for byte in more than one split under different names.")
    if both := sum(len(which) > 1 for which in labels.values()):
        notes.append(f"{both} images stand byte for byte under different names with different labels.")
    return notes
