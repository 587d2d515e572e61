"""Images of pure noise: a source for universal perturbations that needs no image at all."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medrobust import seeds
from medrobust.errors import InputError
from medrobust.images import Images


class Noise:
    """n images (c, h, w), each pixel uniform in [0, 1]; drawn when asked for, each keyed by (seed, position)."""

    def __init__(self, n: int, shape: Sequence[int], seed: int = 0) -> None:
        if n < 1 or len(shape) != 3:
            raise InputError(f"noise needs at least one image and a shape (c, h, w), got {n} and {tuple(shape)}")
        self.n, self.shape, self.seed = n, tuple(shape), seed
        self.name = "noise"

    def __len__(self) -> int:
        return self.n

    def images(self, indices: Sequence[int] | np.ndarray) -> Images:
        """float32 (m, c, h, w) in [0, 1] at these positions."""
        return (seeds.uniform(self.seed, "universal/noise", [int(i) for i in indices], self.shape) + 1) / 2
