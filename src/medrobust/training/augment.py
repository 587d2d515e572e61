"""Augmentation as in the papers: small rotations and shifts (Hirano et al. 2021), left-right flips (Ma et al. 2020).

One affine map an image, a whole batch in one call. Up-down flips are left out: no chest or fundus is taken so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust import seeds
from medrobust.errors import InputError
from medrobust.images import Images


@dataclass(frozen=True)
class Augment:
    """How far an image may be moved.

    rotation: degrees to either side; shift: share of the side, in either direction; flip: mirror every second
    image left to right (switch it off where the side matters, as for the heart's).
    """

    rotation: float = 5.0
    shift: float = 0.05
    flip: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.rotation <= 180:
            raise InputError(f"rotation must lie in 0..180 degrees, got {self.rotation}")
        if not 0 <= self.shift < 1:
            raise InputError(f"shift must be a share of the side in [0, 1), got {self.shift}")

    def maps(self, n: int, seed: int, epoch: int) -> Tensor:
        """float32 (n, 2, 3): the affine maps of an epoch's n images; depends on (seed, epoch) alone."""
        draw = seeds.generator(seed, "augmentation", epoch)
        angle = np.radians(draw.uniform(-self.rotation, self.rotation, n))
        shift = 2 * draw.uniform(-self.shift, self.shift, (n, 2))  # affine_grid's side is 2 long
        mirror = np.where(draw.random(n) < 0.5, -1.0, 1.0) if self.flip else np.ones(n)
        rows = [
            [mirror * np.cos(angle), -np.sin(angle), shift[:, 0]],
            [mirror * np.sin(angle), np.cos(angle), shift[:, 1]],
        ]
        return torch.from_numpy(np.stack([np.stack(row, 1) for row in rows], 1)).float()


def warp(images: Images, maps: Tensor) -> Images:
    """Each image under its own map, bilinear; what comes in from outside repeats the border."""
    if math.prod(images.shape) == 0:
        return images
    grid = F.affine_grid(maps.to(images.device), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
