"""In the making."""

from __future__ import annotations

from medrobust.data.phantom_canvas import Field, Rng
from medrobust.data.phantom_chest import chest


def skin(rng: Rng, lesion: Rng, size: int, diseased: bool) -> tuple[Field, Field]:
    """The image (h, w, 3) and the lesion mask."""
    image, mask = chest(rng, lesion, size, diseased)
    return image[..., None].repeat(3, axis=2), mask
