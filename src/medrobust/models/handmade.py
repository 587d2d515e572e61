"""Hand-made features of an image and one linear layer: wavelet energies, grey-level co-occurrence, Hu's moments.

What networks trained by meta-heuristics were fed before deep features (Jindal & Kumar 2022). PyWavelets and
scikit-image compute them, one image after another on the CPU: there is no gradient with respect to pixels, so
attacks that need one are inconclusive on such a network and only those without gradients say something.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from medrobust.errors import InputError

LEVELS = 3
"""Of the wavelet transform; db2 then needs images of 24 px or more."""
SMALLEST = 24
GREYS = 32
"""Levels that pixels are counted in for co-occurrence."""
DISTANCES = (1, 2, 4)
ANGLES = (0.0, np.pi / 4, np.pi / 2, 3 * np.pi / 4)
PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "entropy")
FLOOR = 1e-8
"""Added before logarithms, in squared pixel units: far below the 8-bit grid, so that black images stay finite."""

Pixels = np.ndarray
"""float64 (c, h, w) in [0, 1]."""


def wavelet(image: Pixels) -> np.ndarray:
    """(11 c,): log mean square of the 9 detail bands of 3 db2 levels, and mean and deviation of what is left."""
    import pywt

    out: list[float] = []
    for channel in image:
        rest, *details = pywt.wavedec2(channel, "db2", level=LEVELS)
        out += [np.log(np.mean(band**2) + FLOOR) for level in details for band in level]
        out += [rest.mean() / 2**LEVELS, rest.std() / 2**LEVELS]
    return np.asarray(out)


def texture(image: Pixels) -> np.ndarray:
    """(36,): Haralick's properties of grey-level co-occurrence at 3 distances, mean and range over 4 directions.

    Haralick et al. 1973 (IEEE Trans SMC 3:610): the mean and the range make them free of the direction.
    """
    from skimage.feature import graycomatrix, graycoprops

    levels = np.minimum((image.mean(0) * GREYS).astype(np.uint8), GREYS - 1)
    counts = graycomatrix(levels, DISTANCES, ANGLES, levels=GREYS, symmetric=True, normed=True)
    properties = np.stack([graycoprops(counts, name) for name in PROPERTIES])  # property, distance, direction
    return np.concatenate([properties.mean(2).ravel(), np.ptp(properties, axis=2).ravel()])


def hu(image: Pixels) -> np.ndarray:
    """(14,): Hu's seven moments (Hu 1962) of the brightness and of its brighter part (Otsu), signed logarithms."""
    from skimage.filters import threshold_otsu
    from skimage.measure import moments_central, moments_hu, moments_normalized

    grey = image.mean(0)
    bright = np.zeros_like(grey) if grey.min() == grey.max() else (grey > threshold_otsu(grey)).astype(float)
    out = []
    for plane in (grey, bright):
        moments = moments_hu(moments_normalized(moments_central(plane))) if plane.any() else np.zeros(7)
        # the seven span twelve orders of magnitude and some change sign under reflection
        out.append(np.sign(moments) * np.log1p(np.abs(moments) / 1e-12))
    return np.concatenate(out)


def handmade(image: Pixels) -> np.ndarray:
    """(11 c + 50,): all of them."""
    return np.concatenate([wavelet(image), texture(image), hu(image)])


HANDMADE: dict[str, Callable[[Pixels], np.ndarray]] = {
    "wavelet": wavelet,
    "texture": texture,
    "hu": hu,
    "handmade": handmade,
}


class Handmade(nn.Module):
    """Features of HANDMADE, then a linear layer to ``outputs`` logits; takes (n, channels, h, w) in [0, 1]."""

    def __init__(self, kind: str, *, outputs: int, channels: int) -> None:
        super().__init__()
        self.kind, self.channels = kind, channels
        count = {"wavelet": 11 * channels, "texture": 36, "hu": 14, "handmade": 11 * channels + 50}[kind]
        self.linear = nn.Linear(count, outputs)

    def forward(self, images: Tensor) -> Tensor:
        if min(images.shape[-2:]) < SMALLEST:
            raise InputError(f"{self.kind} features need images of {SMALLEST} px or more, got {images.shape[-1]}")
        rows = [HANDMADE[self.kind](image) for image in images.detach().double().clamp(0, 1).cpu().numpy()]
        logits: Tensor = self.linear(torch.from_numpy(np.stack(rows)).to(images))
        return logits
