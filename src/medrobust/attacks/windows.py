"""Square windows of an image, one a row and of any size, and what the Square attack paints into them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from medrobust.images import Images


def corner(side: Tensor, place: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Top and left (n,) of windows of ``side`` (n,), at ``place`` (n, 2) in [0, 1] of where they fit."""
    h, w = shape
    top = torch.minimum((place[:, 0] * (h - side + 1)).long(), h - side)
    left = torch.minimum((place[:, 1] * (w - side + 1)).long(), w - side)
    return top, left


def inside(side: Tensor, place: Tensor, shape: tuple[int, int]) -> Tensor:
    """bool (n, h, w): the pixels of each row's window."""
    top, left = corner(side, place, shape)
    y, x = torch.arange(shape[0], device=side.device), torch.arange(shape[1], device=side.device)
    tall = (y >= top[:, None]) & (y < (top + side)[:, None])
    wide = (x >= left[:, None]) & (x < (left + side)[:, None])
    return tall[:, :, None] & wide[:, None, :]


def blotch(side: Tensor, place: Tensor, turned: Tensor, shape: tuple[int, int]) -> Images:
    """(n, 1, h, w): the paper's pattern of L2 norm 1 in each row's window, 0 around it."""
    sides = side.unique()  # a few: the side falls in ten steps
    largest = int(sides[-1])
    patterns = torch.stack(
        [torch.nn.functional.pad(pattern(s), (0, largest - s, 0, largest - s)) for s in sides.tolist()]
    ).to(place.device)
    patches = patterns[torch.searchsorted(sides, side)]
    patches = torch.where(turned[:, None, None], patches.transpose(1, 2), patches)
    top, left = corner(side, place, shape)
    y = torch.arange(shape[0], device=side.device) - top[:, None]
    x = torch.arange(shape[1], device=side.device) - left[:, None]
    rows = patches.gather(1, y.clamp(0, largest - 1)[:, :, None].expand(-1, -1, largest))
    whole = rows.gather(2, x.clamp(0, largest - 1)[:, None, :].expand(-1, shape[0], -1))
    return torch.where(inside(side, place, shape), whole, 0.0)[:, None]


def tiled(signs: Tensor, side: int, turned: Tensor, shape: Sequence[int]) -> Images:
    """The paper's start in L2: patterns side by side over the image, each with its sign (n, c, rows, columns)."""
    one = pattern(side).to(signs.device)
    tile = torch.where(turned[:, None, None], one.T, one)
    n, c, rows, columns = signs.shape
    whole = signs[:, :, :, None, :, None] * tile[:, None, None, :, None, :]
    whole = whole.reshape(n, c, rows * side, columns * side)
    down, across = shape[0] - rows * side, shape[1] - columns * side
    return torch.nn.functional.pad(whole, (across // 2, across - across // 2, down // 2, down - down // 2))


@lru_cache(maxsize=64)
def pattern(side: int) -> Tensor:
    """(side, side): an upper half that rises to its middle, a lower half that falls, L2 norm 1 (paper, figure 3)."""
    if side == 1:
        return torch.ones(1, 1)
    halves = torch.cat([_mound(side // 2, side), -_mound(side - side // 2, side)])
    unit: Tensor = halves / halves.norm()
    return unit


def _mound(height: int, width: int) -> Tensor:
    """Rectangles within each other, the k-th from the middle adding 1 / k^2."""
    out = torch.zeros(height, width)
    y, x = height // 2, width // 2
    for k in range(max(y, x) + 1):
        out[max(y - k, 0) : min(y + k + 1, height), max(x - k, 0) : min(x + k + 1, width)] += 1 / (k + 1) ** 2
    unit: Tensor = out / out.norm()
    return unit
