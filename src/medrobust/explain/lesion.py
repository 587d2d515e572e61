"""Does a map show the lesion? Measures against a true mask, one number an image; NaN where the mask is empty or the map
is all zeros."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medrobust import stats
from medrobust.errors import InputError
from medrobust.images import PerImage


def pointing_game(maps: Tensor, masks: Tensor, tolerance: int = 0) -> PerImage:
    """float64 (n,): 1 where the largest value of a map (n, h, w) lies in the lesion, else 0 (Zhang et al. 2018,
    arXiv:1608.00507). masks: (n, 1, h, w), lesion from 0.5 up. tolerance: by so many pixels it may miss; in the paper
    15 on photographs of about 500. Of equal values the first one counts."""
    inside = _inside(maps, masks)
    if tolerance:
        wide = torch.nn.functional.max_pool2d(inside[:, None].float(), 2 * tolerance + 1, 1, tolerance)
        inside = wide[:, 0] > 0
    top = maps.flatten(1).argmax(1, keepdim=True)
    hit = inside.flatten(1).gather(1, top)[:, 0].double()
    return torch.where(_usable(maps, masks), hit, torch.nan)


def lesion_auroc(maps: Tensor, masks: Tensor) -> PerImage:
    """float64 (n,): how well a map ranks the pixels of the lesion above the others; 0.5 is chance."""
    inside, usable = _inside(maps, masks), _usable(maps, masks)
    areas = [
        stats.auroc(m.flatten().double().numpy(), i.flatten().numpy()).value if ok and not i.all() else np.nan
        for m, i, ok in zip(maps, inside, usable.tolist(), strict=True)
    ]
    return torch.tensor(areas, dtype=torch.float64)


def lesion_share(maps: Tensor, masks: Tensor) -> PerImage:
    """float64 (n,): how much of a map's mass lies in the lesion. The area of the lesion is what chance gives."""
    inside = _inside(maps, masks)
    mass = maps.double().flatten(1)
    share = (mass * inside.flatten(1)).sum(1) / mass.sum(1)
    return torch.where(_usable(maps, masks), share, torch.nan)


def lesion_area(masks: Tensor) -> PerImage:
    """float64 (n,): share of the pixels that belong to the lesion."""
    return (masks >= 0.5).double().flatten(1).mean(1)


def _inside(maps: Tensor, masks: Tensor) -> Tensor:
    if masks.shape != (len(maps), 1, *maps.shape[1:]):
        raise InputError(f"masks must be (n, 1, h, w) as the maps {tuple(maps.shape)}, got {tuple(masks.shape)}")
    return masks[:, 0] >= 0.5


def _usable(maps: Tensor, masks: Tensor) -> Tensor:
    return (masks >= 0.5).flatten(1).any(1) & (maps > 0).flatten(1).any(1)
