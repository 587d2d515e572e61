"""Uneven light: bias fields, dark rims, glare. Smooth over the image, the same in every channel."""

from __future__ import annotations

import numpy as np

from medrobust.data.corruptions.corruption import Image, fitted, side
from medrobust.data.phantom_canvas import bump, grid, texture


def bias_field(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Multiplied by e^(strength x a smooth field between -1 and 1): heel effect, coil sensitivity, a tilted lamp."""
    field = texture(rng, side(image), 2)
    field = field - (field.max() + field.min()) / 2
    field = field / max(float(np.abs(field).max()), 1e-6)
    return image * fitted(np.exp(np.float32(strength) * field), image)


def vignette(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """Darker towards the rim: by this share at one side's distance from a centre that is a little off."""
    x, y = grid(side(image))
    dx, dy = rng.uniform(-0.3, 0.3, 2)
    distance = (x - np.float32(dx)) ** 2 + (y - np.float32(dy)) ** 2
    return image * fitted(1 - np.float32(strength) * np.minimum(distance, 1.3), image)


def glare(image: Image, strength: float, rng: np.random.Generator) -> Image:
    """A reflection of the flash: a soft spot that is this share of the way to white."""
    x, y = grid(side(image))
    centre, radii = rng.uniform(-0.6, 0.6, 2).tolist(), rng.uniform(0.15, 0.35, 2).tolist()
    spot = fitted(bump(x, y, centre, radii, rng.uniform(0, np.pi)), image)
    return image + strength * spot * (1 - image)
