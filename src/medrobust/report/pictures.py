"""Example images as PNG in the page: clean, the change magnified, attacked."""

from __future__ import annotations

from base64 import b64encode
from io import BytesIO

import numpy as np


def data_uri(image: np.ndarray) -> str:
    """float32 (c, h, w) in [0, 1] as a PNG data URI, rounded to 8 bits."""
    from PIL import Image

    pixels = np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8)
    picture = Image.fromarray(pixels[0]) if pixels.shape[0] == 1 else Image.fromarray(np.moveaxis(pixels[:3], 0, -1))
    out = BytesIO()
    picture.save(out, format="PNG", optimize=True)
    return "data:image/png;base64," + b64encode(out.getvalue()).decode("ascii")


def magnification(delta: np.ndarray) -> float:
    """A round factor (1, 2 or 5 times a power of ten) that brings the largest change close to half the grey scale."""
    largest = float(np.abs(delta).max(initial=0.0))
    if largest == 0:
        return 1.0
    wanted = 0.5 / largest
    power = 10.0 ** np.floor(np.log10(wanted))
    return float(max([m * power for m in (1, 2, 5) if m * power <= wanted * (1 + 1e-6)], default=wanted))


def magnified(delta: np.ndarray, factor: float) -> np.ndarray:
    """The change times factor, around middle grey."""
    return 0.5 + factor * delta
