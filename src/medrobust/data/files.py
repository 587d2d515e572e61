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

import medrobust.data.dicom_pixels as dicom_pixels
import medrobust.data.nifti_file as nifti_file
from medrobust import limits
from medrobust.data.dataset import Dataset, assemble, check
from medrobust.data.decode import CHANGES, Decoded, decode, upright_size
from medrobust.data.dicom_file import is_dicom
from medrobust.data.frames import FileRow, expanded
from medrobust.data.source import LeftOut, Listing, Request, Source
from medrobust.errors import InputError
from medrobust.formats import TITLES
from medrobust.images import SPAN

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
    levels: int = 255
    bottom: int = 0
    top: int = 0
    changes: frozenset[str] = frozenset()
    step: float = 0.0
    storable: tuple[int, int] = (0, 0)
    """See ``Decoded.storable``."""


class FileSource(Source):
    """Image files, decoded to size x size, or at their own sizes with fit "none"."""

    def __init__(self, files: Sequence[FileRow], size: int | None, grey: bool, fit: str, window: str = "auto") -> None:
        super().__init__()
        self.files = list(files)
        self.grey, self.window = grey, window
        self._size, self._fit = size, fit
        self.size, self.channels, self.bits = size or 0, 1, 8
        self.info: list[FileInfo] = []

    def inspect(self, row: int) -> FileInfo:
        """Decode one file whole; keep its pixels while there is room."""
        try:
            data = read_bytes(self.files[row].file)
            if not data:
                return FileInfo("the file is empty")
            image = self._decoded(data, row)
        except UnidentifiedImageError:
            return FileInfo(f"not an image that can be read ({TITLES} are)")
        except Exception as error:  # a decoder raises whatever it likes on damaged bytes
            return FileInfo(" ".join(str(error).split())[:200] or type(error).__name__)
        pixels = image.pixels
        self.keep(row, pixels)
        digest = hashlib.sha256(data).hexdigest()
        if is_dicom(data) or nifti_file.is_nifti(self.files[row].file):
            digest = hashlib.sha256(f"{digest} {self.files[row].frame} {self.window}".encode()).hexdigest()
        ends = int(pixels.min()), int(pixels.max())
        return FileInfo(
            "",
            digest,
            image.native,
            pixels.shape,
            image.bits,
            image.levels,
            *ends,
            image.changes,
            image.step,
            image.storable or (0, image.levels),
        )

    def _decoded(self, data: bytes, row: int) -> Decoded:
        if nifti_file.is_nifti(self.files[row].file):
            return nifti_file.decode_nifti(data, self.files[row].frame, self.window, self._size, self._fit)
        if is_dicom(data):
            return dicom_pixels.decode_dicom(data, self.files[row].frame, self.window, self._size, self.grey, self._fit)
        return decode(data, self._size, self.grey, self._fit)

    def read(self, row: int) -> np.ndarray:
        file = self.files[row].file
        try:
            return self._on_scale(row, self._decoded(read_bytes(file), row).pixels)
        except Exception as error:
            raise InputError(f"{file} was readable at first and is not any more: {error}") from error

    def settle(self, good: Sequence[FileInfo]) -> None:
        """Take the surround in where an image has pixels outside of what is shown; kept pixels follow."""
        self.surround = any(info.bottom < 0 or info.top > info.levels for info in good)
        self.stored_values = any(row.dicom for row in self.files)
        kept, self._kept, self._kept_bytes = self._kept, {}, 0
        for row, pixels in kept.items():
            self.keep(row, self._on_scale(row, pixels))

    def _on_scale(self, row: int, pixels: np.ndarray) -> np.ndarray:
        """Whole numbers from 0 to ``levels(row)``."""
        if self.surround:
            pixels = pixels.astype(np.int64) + self.info[row].levels
        return pixels.astype(np.min_scalar_type(self.levels(row)))

    def fingerprint(self, row: int) -> str:
        return self.info[row].hash

    def levels(self, row: int) -> int:
        return self.info[row].levels * (SPAN if self.surround else 1)

    def storable(self, row: int) -> tuple[float, float]:
        info = self.info[row]
        below = info.levels if self.surround else 0
        low, high = ((value + below) / self.levels(row) for value in info.storable)
        return max(low, 0.0), min(high, 1.0)

    def step(self, row: int) -> float:
        return self.info[row].step

    def shape(self, row: int) -> tuple[int, int]:
        height, width = self.info[row].shape[:2]
        return height, width


def open_files(
    name: str, paths: Sequence[Path], listing: Listing, request: Request, label: str | None = None
) -> Dataset:
    """The Dataset of image files; unreadable ones are left out, InputError if that is more than half of them.

    label: the element of DICOM files that holds the label; None where the listing has the labels.
    """
    fit = request.fit or "stretch"
    if any(nifti_file.is_nifti(path) for path in paths):
        nifti_file.need_nibabel()
    files, listing = expanded(paths, listing, request, label)
    check(name, listing)
    if request.size is None and fit != "none":
        _one_size(name, files, fit)
    source = FileSource(files, request.size, request.channels == 1, fit, request.window)
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
    source.settle(good)
    data = assemble(name, source, listing, request, rows, left_out)
    good = [source.info[row] for row in data.rows]
    if fit == "none" or any(info.native[0] != info.native[1] for info in good):
        source.fit = fit
    return _annotate(data, good, request)


def read_bytes(file: Path) -> bytes:
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


def _one_size(name: str, files: Sequence[FileRow], fit: str) -> None:
    """InputError unless all images have the same size, and a square one unless ``fit`` makes it so; headers only."""
    sizes: Counter[tuple[int, int]] = Counter()
    for file in files:
        try:
            sizes[file.size or upright_size(file.file)] += 1
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
    for change, text in {**CHANGES, **dicom_pixels.CHANGES, **nifti_file.CHANGES}.items():
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
    elif (depths := Counter(info.bits for info in good)) and len(depths) > 1:
        counts = ", ".join(f"{count} of {bits} bits" for bits, count in sorted(depths.items()))
        notes.append(f"The images differ in depth ({counts}); each keeps its own grey levels.")
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
