"""Images in files: each is decoded once at load, so that a damaged one is found before the work starts."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from medrobust.data.dataset import Dataset, assemble
from medrobust.data.decode import decode
from medrobust.data.source import LeftOut, Listing, Request, Source
from medrobust.errors import InputError

THREADS = 2
CHUNK = 256


class Seen(NamedTuple):
    """What one look at a file showed. reason: why it can not be used; "" if it can."""

    reason: str
    hash: str = ""
    native: tuple[int, int] = (0, 0)
    shape: tuple[int, ...] = ()
    bits: int = 8
    top: int = 0
    frames: int = 1
    lost: bool = False


class FileSource(Source):
    """Image files, decoded to size x size."""

    def __init__(self, files: Sequence[Path], size: int | None, grey: bool) -> None:
        super().__init__()
        self.files = list(files)
        self.grey = grey
        self._size = size
        self.size, self.channels, self.bits = size or 0, 1, 8
        self.seen: list[Seen] = []

    def look(self, row: int) -> Seen:
        """Decode one file whole; keep its pixels while there is room."""
        try:
            data = self.files[row].read_bytes()
            if not data:
                return Seen("the file is empty")
            image = decode(data, self._size, self.grey)
        except UnidentifiedImageError:
            return Seen("not an image that can be read (PNG, JPEG, TIFF and BMP are)")
        except Exception as error:  # a decoder raises whatever it likes on damaged bytes
            return Seen(" ".join(str(error).split())[:200] or type(error).__name__)
        pixels = image.pixels
        self.keep(row, pixels)
        bits = 16 if pixels.dtype == np.uint16 else 8
        digest = hashlib.sha256(data).hexdigest()
        return Seen("", digest, image.native, pixels.shape, bits, int(pixels.max()), image.frames, image.lost)

    def read(self, row: int) -> np.ndarray:
        try:
            return decode(self.files[row].read_bytes(), self._size, self.grey).pixels
        except Exception as error:
            raise InputError(f"{self.files[row]} was readable at first and is not any more: {error}") from error

    def fingerprint(self, row: int) -> str:
        return self.seen[row].hash


def open_files(name: str, files: Sequence[Path], listing: Listing, request: Request) -> Dataset:
    """The Dataset of image files; unreadable ones are left out, InputError if that is more than half of them."""
    if request.size is None:
        _one_size(name, files)
    source = FileSource(files, request.size, request.channels == 1)
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(files), CHUNK):  # in pieces, so that Ctrl-C does not wait for all of them
            source.seen += pool.map(source.look, range(start, min(start + CHUNK, len(files))))
            if request.progress is not None:
                request.progress(len(source.seen), len(files))
    left_out = tuple(LeftOut(listing.ids[row], seen.reason) for row, seen in enumerate(source.seen) if seen.reason)
    if 2 * len(left_out) > len(files):
        first = left_out[0]
        raise InputError(
            f"{len(left_out)} of the {len(files)} images of {name} can not be read, first {first.file}: {first.reason}"
        )
    rows = np.array([row for row, seen in enumerate(source.seen) if not seen.reason], dtype=np.int64)
    good = [source.seen[row] for row in rows]
    source.size = request.size or good[0].shape[0]
    source.channels = 3 if any(len(seen.shape) == 3 for seen in good) else 1
    source.bits = max(seen.bits for seen in good)
    data = assemble(name, source, listing, request, rows, left_out)
    return _annotate(data, good, request)


def _one_size(name: str, files: Sequence[Path]) -> None:
    """InputError unless all images have the same square size; reads headers only."""
    sizes: Counter[tuple[int, int]] = Counter()
    for file in files:
        try:
            with Image.open(file) as image:
                sizes[image.size] += 1
        except Exception:  # a damaged file is counted and named later, with its reason
            continue
    if not sizes:
        return
    (width, height), count = sizes.most_common(1)[0]
    if len(sizes) > 1:
        raise InputError(
            f"the images of {name} differ in size ({len(sizes)} sizes, most often {width} x {height}, "
            f"{count} of {sizes.total()}); choose the side to resize them to, for example size=224"
        )
    if width != height:
        raise InputError(
            f"the images of {name} are {width} x {height}, not square; choose the side to resize them to, "
            "for example size=224"
        )


def _annotate(data: Dataset, good: Sequence[Seen], request: Request) -> Dataset:
    """Notes on what reading the files did to the pixels, and on images that are there twice."""
    notes = list(data.notes)
    side = data.size
    resized = sum(seen.native != (side, side) for seen in good)
    if resized:
        notes.append(f"{resized} of {len(good)} images were resized to {side} x {side} (bilinear, antialiased).")
    stretched = sum(seen.native[0] != seen.native[1] for seen in good)
    if stretched:
        notes.append(
            f"{stretched} of them are not square and were stretched, so that nothing at the border is cut off."
        )
    if request.channels == 1 and data.channels == 1:
        notes.append("Colour images, if any, were reduced to grey (ITU-R 601 luma).")
    elif data.channels == 3 and any(len(seen.shape) == 2 for seen in good):
        notes.append(f"{sum(len(seen.shape) == 2 for seen in good)} of {len(good)} images are grey, the others colour.")
    if data.bits == 16 and max(seen.top for seen in good) < 4096:
        notes.append(
            f"The 16-bit images use values up to {max(seen.top for seen in good)} only and are read as they are, "
            "that is very dark; stretch them to 0 to 65535 before the audit."
        )
    if any(seen.lost for seen in good):
        notes.append(f"{sum(seen.lost for seen in good)} images hold 16-bit colour and were read at 8 bits.")
    if any(seen.frames > 1 for seen in good):
        notes.append(f"{sum(seen.frames > 1 for seen in good)} files hold several frames; the first was read.")
    notes += _twins(data)
    return dataclasses.replace(data, notes=tuple(notes))


def _twins(data: Dataset) -> list[str]:
    """A sentence where the same file content stands in two splits: the test then holds training images."""
    sides: dict[str, set[str]] = {}
    for row, side in zip(data.rows, data.sides, strict=True):
        sides.setdefault(data.source.fingerprint(int(row)), set()).add(str(side))
    both = sum(len(where) > 1 for where in sides.values())
    if not both:
        return []
    return [f"{both} images stand byte for byte in more than one split under different names."]
