"""Low-frequency patterns: the discrete cosine basis in which black-box attacks search (Guo et al. 2019).

Natural and medical images, and the features to which networks are most sensitive, lie mostly in low frequencies (Guo et
al. 2018, arXiv:1809.08758): a search among them needs far fewer queries than one among pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.images import Images
from medrobust.threat import Ball, Linf


class LowFrequency:
    """The lowest frequencies (at most ``kept`` along each side) of patterns (c, h, w), in an orthonormal cosine basis.

    A basis pattern is the outer product of two cosines, so no transform of a whole image is ever taken. Frequency k
    is k / 2 waves across the image, whatever its size in pixels.
    """

    def __init__(self, shape: Sequence[int], kept: int, device: torch.device | str = "cpu") -> None:
        c, h, w = shape
        self.down = cosines(h, min(kept, h)).to(device)
        self.across = cosines(w, min(kept, w)).to(device)
        self.shape = (c, self.down.shape[1], self.across.shape[1])
        """Of the coefficients of one pattern."""

    @property
    def size(self) -> int:
        """Number of coefficients of one pattern."""
        return math.prod(self.shape)

    def patterns(self, coefficients: Tensor) -> Images:
        """Patterns (n, c, h, w) of coefficients (n, *shape); their L2 norms are the same."""
        return self.down @ coefficients @ self.across.T

    def coefficients(self, patterns: Images) -> Tensor:
        """Coefficients (n, *shape) of the nearest low-frequency patterns."""
        return self.down.T @ patterns @ self.across

    def basis(self, channel: int, row: int, column: int) -> Tensor:
        """The basis pattern (c, h, w) of frequency ``row`` down and ``column`` across in one channel; L2 norm 1."""
        pattern = torch.zeros(self.shape[0], len(self.down), len(self.across), device=self.down.device)
        pattern[channel] = torch.outer(self.down[:, row], self.across[:, column])
        return pattern


@lru_cache(maxsize=32)
def cosines(side: int, kept: int) -> Tensor:
    """float32 (side, kept): the columns are the first orthonormal cosines of the discrete cosine transform (DCT-II)."""
    place, frequency = torch.arange(side).double(), torch.arange(kept).double()
    waves = torch.cos(math.pi / side * torch.outer(place + 0.5, frequency)) * math.sqrt(2 / side)
    waves[:, 0] /= math.sqrt(2)
    return waves.float()


def outwards(shape: Sequence[int], first: int, stride: int, seed: int) -> Iterator[tuple[int, int, int]]:
    """(channel, row, column) of every basis pattern: in random order within the block of the ``first`` frequencies,
    then within the rim of the next ``stride``, and so on; without end, each round in an order of its own.
    """
    c, h, w = shape
    number = 0
    while True:
        inner, outer = 0, first
        while inner < max(h, w):
            rim = [
                (channel, row, column)
                for channel in range(c)
                for row in range(min(outer, h))
                for column in range(min(outer, w))
                if max(row, column) >= inner
            ]
            for i in seeds.generator(seed, "universal/outwards", number).permutation(len(rim)):
                yield rim[i]
            inner, outer, number = outer, outer + stride, number + 1


def reach(ball: Ball, shape: Sequence[int]) -> float:
    """L2 norm of the longest perturbation (c, h, w) in the ball: eps, or that of all pixels at eps for Linf."""
    return float(ball.eps) * (math.sqrt(math.prod(shape)) if isinstance(ball, Linf) else 1.0)
