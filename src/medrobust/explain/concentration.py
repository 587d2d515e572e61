"""How much a map concentrates on few pixels: two numbers an image, both independent of the map's scale."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.images import PerImage


def half_share(maps: Tensor, mass: float = 0.5) -> PerImage:
    """float64 (n,): the smallest share of the pixels that holds ``mass`` of a map (n, h, w) >= 0.

    1/(h w) for a single pixel, ``mass`` itself for a flat map; NaN for a map of zeros.
    """
    values, total = _sorted(maps)
    reached = values.flip(1).cumsum(1) >= mass * total * (1 - 1e-12)
    count = reached.double().argmax(1) + 1
    return torch.where(total[:, 0] > 0, count.double() / values.shape[1], torch.nan)


def gini(maps: Tensor) -> PerImage:
    """float64 (n,): Gini coefficient of a map (n, h, w) >= 0 over its pixels (Hurley & Rickard 2009, arXiv:0811.4706).

    0 for a flat map, 1 - 1/(h w) for a single pixel; NaN for a map of zeros.
    """
    values, total = _sorted(maps)
    n = values.shape[1]
    rank = torch.arange(1, n + 1, dtype=torch.float64)
    coefficient = (values * (2 * rank - n - 1)).cumsum(1)[:, -1] / (n * total[:, 0])
    return torch.where(total[:, 0] > 0, coefficient, torch.nan)


def _sorted(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels ascending, float64 (n, h*w), and their sum (n, 1)."""
    values = maps.flatten(1).double().sort(1).values
    # a running sum adds in one order, whatever the number of images
    return values, values.cumsum(1)[:, -1:]
