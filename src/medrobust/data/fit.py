"""How an image that is not square becomes square, or stays as it is."""

from __future__ import annotations

import numpy as np

FITS = ("stretch", "crop", "pad", "none")
"""stretch: each side is resized on its own, nothing is cut off. crop: the middle square. pad: black bars, which keep
both the proportions and the border. none: every image keeps its size and shape, for a classifier that brings it to its
own (``models.preprocessing``)."""


def square(pixels: np.ndarray, fit: str) -> np.ndarray:
    """(s, s[, 3]) of (h, w[, 3]) by "crop" (s = min) or "pad" (s = max, with zeros); as it is for "stretch" and "none".

    Where the bars or the margins cannot be equal, the right and the lower one are a pixel larger.
    """
    height, width = pixels.shape[:2]
    if fit in ("stretch", "none") or height == width:
        return pixels
    if fit == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return np.ascontiguousarray(pixels[top : top + side, left : left + side])
    side = max(height, width)
    top, left = (side - height) // 2, (side - width) // 2
    out = np.zeros((side, side, *pixels.shape[2:]), pixels.dtype)
    out[top : top + height, left : left + width] = pixels
    return out
