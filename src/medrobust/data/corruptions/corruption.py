"""The interface of corruptions: an image, an amount that grows with the severity, and a generator of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Image: TypeAlias = Tensor
"""float32 (c, h, w) in [0, 1]; c is 1 or 3."""
Amount: TypeAlias = float | tuple[float, ...]
Change: TypeAlias = Callable[[Image, Any, np.random.Generator], Image]
"""(image, amount, generator) to the corrupted image; the amount is that of the corruption's own table."""

ANY = ("xray", "fundus", "dermoscopy", "natural")
"""The modalities that are told apart."""

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """A change that happens to images in practice, without anyone's intent.

    change: what leaves [0, 1] is clipped by the caller. It draws the same numbers whatever the amount, so that a higher
        severity is more of the same change.
    amounts: for the severities 1 to 5. modalities: where it is seen. colour: only colour images have it.
    """

    title: str
    change: Change
    amounts: tuple[Amount, Amount, Amount, Amount, Amount]
    modalities: tuple[str, ...] = ANY
    colour: bool = False


def side(image: Image) -> int:
    """The longer side, in pixels."""
    return max(image.shape[-2:])


def at_128(image: Image) -> float:
    """Factor for lengths that are given in pixels at 128 px.

    The root of the side: between lengths in pixels (a camera's blur, which a small image mostly averages away) and
    lengths as a share of the side (which would leave nothing to see at 28 px).
    """
    return float((side(image) / 128) ** 0.5)


def fitted(field: np.ndarray, image: Image) -> Tensor:
    """A square field of ``side(image)``, stretched to (h, w) where the image is not square."""
    square = torch.from_numpy(field)
    if image.shape[-2] == image.shape[-1]:
        return square
    return F.interpolate(square[None, None], size=image.shape[-2:], mode="bilinear", antialias=True)[0, 0]
