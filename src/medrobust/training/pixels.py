"""A split's pixels at hand: kept whole at their own bit depth where that is small, else decoded batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from medrobust.images import Images, as_float
from medrobust.progress import Progress

if TYPE_CHECKING:
    from medrobust.data import Dataset

KEPT = 2**30
"""Bytes up to which a split is kept in memory."""
CHUNK = 256
"""Images decoded at a time: a float chunk at 224 px in colour takes 150 MiB."""


class Pixels:
    """The face of a Dataset that training needs: labels, and images by index."""

    def __init__(self, data: Dataset, progress: Progress, name: str, kept: int = KEPT) -> None:
        self._data, self.name = data, data.name
        self.labels = np.asarray(data.labels, dtype=np.int64)
        self._store: np.ndarray | None = None
        self._levels = torch.from_numpy(data.levels)
        kind = np.min_scalar_type(int(self._levels.max()))
        shape = (len(data), data.channels, data.size, data.size)
        if int(np.prod(shape)) * kind.itemsize <= kept:
            self._store = self._decode(np.empty(shape, kind), progress, name)

    def __len__(self) -> int:
        return len(self.labels)

    def images(self, indices: Sequence[int] | np.ndarray) -> Images:
        """float32 (m, c, h, w) in [0, 1], the very values that the Dataset gives."""
        if self._store is None:
            return self._data.images(indices)
        index = np.asarray(indices)
        return as_float(torch.from_numpy(self._store[index]), self._levels[index])

    def moments(self, limit: int = 512) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """(mean, std) a channel over at most ``limit`` images spread evenly over the split."""
        indices = np.unique(np.linspace(0, len(self) - 1, min(limit, len(self))).astype(np.int64))
        first, second, count = np.zeros(self._data.channels), np.zeros(self._data.channels), 0
        for start in range(0, indices.size, 64):
            images = self.images(indices[start : start + 64]).double().numpy()
            first += images.sum((0, 2, 3))
            second += (images**2).sum((0, 2, 3))
            count += images.shape[0] * images.shape[2] * images.shape[3]
        mean = first / count
        std = np.sqrt(np.maximum(second / count - mean**2, 0))
        # a split of one single grey has no spread; one grey level keeps the division finite
        return tuple(mean.tolist()), tuple(np.maximum(std, 1 / 255).tolist())

    def _decode(self, store: np.ndarray, progress: Progress, name: str) -> np.ndarray:
        progress.start(f"reading {name} images", len(self))
        try:
            for start in range(0, len(self), CHUNK):
                indices = np.arange(start, min(start + CHUNK, len(self)))
                top = self._levels[indices].view(-1, 1, 1, 1)
                store[indices] = (self._data.images(indices).double() * top).round().numpy()
                progress.advance(indices.size)
        finally:
            progress.stop()
        return store
