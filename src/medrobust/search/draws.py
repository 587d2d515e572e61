"""One stream of randomness a seed, stacked: a seed draws the same numbers alone, in any batch and in any order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust import seeds as keyed

Seed = int | tuple[int | str, ...]
"""A number, or (number, id, …): an image's own stream under one seed."""

_NUMPY = {torch.float32: np.float32, torch.float64: np.float64}


class Draws:
    """The generators of all rows. ``purpose`` separates streams of one seed: the first points, the moves."""

    def __init__(self, seeds: Sequence[Seed], purpose: str, device: torch.device, dtype: torch.dtype) -> None:
        named = [seed if isinstance(seed, tuple) else (seed,) for seed in seeds]
        self.generators = [keyed.generator(int(first), purpose, *ids) for first, *ids in named]
        self.device, self.dtype = device, dtype
        self._rough: list[np.random.SFC64] | None = None

    def keep(self, rows: Sequence[int]) -> None:
        self.generators = [self.generators[r] for r in rows]
        if self._rough is not None:
            self._rough = [self._rough[r] for r in rows]

    def uniform(self, *shape: int) -> Tensor:
        """(S, *shape) in [0, 1)."""
        out = np.empty((len(self.generators), *shape), _NUMPY[self.dtype])
        for generator, row in zip(self.generators, out, strict=True):
            generator.random(dtype=out.dtype, out=row) if shape else row.fill(0)
        return torch.from_numpy(out).to(self.device)

    def normal(self, *shape: int) -> Tensor:
        """(S, *shape), standard normal."""
        out = np.empty((len(self.generators), *shape), _NUMPY[self.dtype])
        for generator, row in zip(self.generators, out, strict=True):
            generator.standard_normal(dtype=out.dtype, out=row)
        return torch.from_numpy(out).to(self.device)

    def noise(self, *shape: int) -> Tensor:
        """int16 (S, *shape), each of the 2^16 as likely: for rough noise, in a fifth of the time of ``uniform``."""
        if self._rough is None:
            self._rough = [np.random.SFC64(g.integers(2**63, size=2).tolist()) for g in self.generators]
        count = math.prod(shape)
        raw = [generator.random_raw(-(-count // 4)) for generator in self._rough]
        bits = raw[0][None] if len(raw) == 1 else np.stack(raw)
        return torch.from_numpy(bits.view(np.int16))[:, :count].to(self.device).view(-1, *shape)

    def below(self, count: int, *shape: int) -> Tensor:
        """(S, *shape) int64, each of 0 … count - 1 as likely."""
        out = np.empty((len(self.generators), *shape), np.int64)
        for generator, row in zip(self.generators, out, strict=True):
            row[...] = generator.integers(0, count, shape)
        return torch.from_numpy(out).to(self.device)
