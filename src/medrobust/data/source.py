"""Where pixels come from: one abstract Source, a bounded memory of decoded pixels, and what a source lists."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from medrobust.images import SPAN

KEPT_BYTES = 256 * 2**20
"""Decoded pixels kept, so that an epoch does not decode every JPEG again; memory does not grow beyond it."""

NO_FILE = "its row names no file"
"""The reason why a row of a table is left out."""

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


class LeftOut(NamedTuple):
    """An image that was listed and could not be used: its file, or the row of the table, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class Request:
    """The arguments of ``load``; see there."""

    size: int | None = None
    channels: int | None = None
    seed: int = 0
    label: str = "label"
    patient: str | None = None
    fit: str | None = None
    progress: Progress | None = None
    findings: tuple[str, ...] | None = None
    separator: str | None = None
    window: str = "auto"
    frames: str = "one"


@dataclass(frozen=True)
class Listing:
    """The metadata of images before any pixel is decoded. Entry i of each sequence is image i.

    classes: the order of the class names where the source fixes it (MedMNIST); otherwise they are sorted.
    labels: as they were written; see ``labels.number_classes``. Of several findings: int64 (n, k) of 0, 1 and UNKNOWN,
    with their names in ``classes``. splits: the given split of each image as it was
    written, or None. patients: one string an image as it was written, or None. left_out: rows without an image.
    """

    ids: Sequence[str]
    labels: Sequence[str] | np.ndarray
    classes: tuple[str, ...] | None = None
    splits: Sequence[str] | None = None
    patients: Sequence[str] | None = None
    extra: dict[str, Sequence[str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()


class Source(ABC):
    """Pixels by row number. A source of your own implements ``read`` and ``fingerprint``.

    size: side of the (square) images that ``read`` returns; with fit "none", the longest side of any. channels: 1 or 3.
    bits: 8 to 16, the deepest that any image is stored with. surround: whether the grey levels that are shown are the
    middle third of what a pixel may hold; see ``images.SPAN``. fit: how images that are not square were made so
    ("stretch", "crop", "pad") or that they were not ("none"); None where all are square.
    """

    size: int
    channels: int
    bits: int
    fit: str | None = None
    surround: bool = False
    stored_values: bool = False
    """Whether attacks are to stay on the grid of ``levels``: of DICOM files."""

    def __init__(self) -> None:
        self._kept: dict[int, np.ndarray] = {}
        self._kept_bytes = 0

    @abstractmethod
    def read(self, row: int) -> np.ndarray:
        """uint8 or uint16, (height, width) or (height, width, 3): the pixels of one image, decoded now."""

    def levels(self, row: int) -> int:  # noqa: ARG002 - the answer is the same for every row of most
        """L, where the stored pixels of one image are the whole numbers from 0 to L: 255 for 8 bits, 4095 for 12."""
        return (1 << self.bits) - 1

    @abstractmethod
    def fingerprint(self, row: int) -> str:
        """A hash of what this image is made of (its file's bytes, its array), free of where it is stored."""

    def shape(self, row: int) -> tuple[int, int]:  # noqa: ARG002 - the answer is the same for every row of most
        """(height, width) of one image."""
        return (self.size, self.size)

    def mask(self, row: int, finding: str | None = None) -> np.ndarray | None:  # noqa: ARG002 - nothing to choose
        """(size, size) in [0, 1], 1 inside the lesion; None where no ground truth is known.

        finding: that one alone, where an image has several, by its name in the source; None for all of them together.
        """
        return None

    def storable(self, row: int) -> tuple[float, float]:  # noqa: ARG002 - most files hold all of it
        """The least and the largest pixel in [0, 1] that one image's file can hold."""
        return 0.0, 1.0

    def step(self, row: int) -> float:  # noqa: ARG002 - of most sources it is not known
        """Hounsfield units of one stored level of one image; 0 where they are not known."""
        return 0.0

    def shown(self) -> Source:
        """What is shown of these images: without a surround, values outside of the window at its ends."""
        return Shown(self) if self.surround else self

    def keep(self, row: int, pixels: np.ndarray) -> None:
        """Remember decoded pixels while they fit into KEPT_BYTES.

        Nothing is ever thrown out: for passes in a cycle (epochs) a full memory that stays is better than
        one that is turned over and never hit.
        """
        if row not in self._kept and self._kept_bytes + pixels.nbytes <= KEPT_BYTES:
            self._kept[row] = pixels
            self._kept_bytes += pixels.nbytes

    def pixels(self, row: int) -> np.ndarray:
        """(channels, height, width), whole numbers from 0 to ``levels``: grey is repeated where others have colour."""
        pixels = self._kept.get(row)
        if pixels is None:
            pixels = self.read(row)
            self.keep(row, pixels)
        if pixels.ndim == 2:
            return np.broadcast_to(pixels, (self.channels, *pixels.shape))
        return pixels.transpose(2, 0, 1)


class Shown(Source):
    """What is shown of a source with a surround."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.size, self.channels, self.bits, self.fit = source.size, source.channels, source.bits, source.fit

    def read(self, row: int) -> np.ndarray:
        top = self.levels(row)
        return (self.source.read(row).astype(np.int64) - top).clip(0, top).astype(np.min_scalar_type(top))

    def levels(self, row: int) -> int:
        return self.source.levels(row) // SPAN

    def storable(self, row: int) -> tuple[float, float]:
        low, high = (min(max(value * SPAN - 1, 0.0), 1.0) for value in self.source.storable(row))
        return low, high

    def fingerprint(self, row: int) -> str:
        return self.source.fingerprint(row)

    def shape(self, row: int) -> tuple[int, int]:
        return self.source.shape(row)

    def mask(self, row: int, finding: str | None = None) -> np.ndarray | None:
        return self.source.mask(row, finding)
