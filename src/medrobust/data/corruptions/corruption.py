"""The interface of corruptions: an image, an amount that grows with the severity, and a generator of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from torch import Tensor

Image: TypeAlias = Tensor
"""float32 (c, h, w) in [0, 1]; c is 1 or 3."""
Change: TypeAlias = Callable[[Image, float, np.random.Generator], Image]

ANY = ("xray", "fundus", "dermoscopy", "natural")
"""The modalities that are told apart."""

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """A change that happens to images in practice, without anyone's intent.

    change: (image, amount, generator) to the corrupted image; what leaves [0, 1] is clipped by the caller. It must
        draw the same numbers whatever the amount, so that a higher severity is more of the same change.
    amounts: for the severities 1 to 5. modalities: where it is seen. colour: only colour images have it.
    """

    title: str
    change: Change
    amounts: tuple[float, float, float, float, float]
    modalities: tuple[str, ...] = ANY
    colour: bool = False


def at_128(image: Image) -> float:
    """Factor for lengths that are given in pixels at 128 px.

    The root of the side: between lengths in pixels (a camera's blur, which a small image mostly averages away) and
    lengths as a share of the side (which would leave nothing to see at 28 px).
    """
    return float((image.shape[-1] / 128) ** 0.5)
