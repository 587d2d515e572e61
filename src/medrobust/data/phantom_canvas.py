"""The brushes that the phantoms share: coordinates, soft edges, smooth texture, antialiased strokes, the device.

All lengths are in units of half the image side (coordinates run from -1 to 1), so that a scene does not depend
on the number of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageDraw

Rng: TypeAlias = np.random.Generator
Field: TypeAlias = np.ndarray
"""float32 (size, size)."""
Stroke: TypeAlias = tuple[np.ndarray, float]
"""Points (m, 2) of a polyline, x and y; and its width."""


@lru_cache(maxsize=4)
def grid(size: int) -> tuple[Field, Field]:
    """x and y at the pixel centres; shared, so never written to."""
    ticks = ((np.arange(size) + 0.5) * 2 / size - 1).astype(np.float32)
    x, y = np.meshgrid(ticks, ticks)
    x.setflags(write=False)
    y.setflags(write=False)
    return x, y


def posed(rng: Rng, size: int, shift: float, turn: float, zoom: float) -> tuple[Field, Field]:
    """Coordinates as the patient stands: moved (in half sides), turned (radians), scaled, by up to these."""
    x, y = grid(size)
    dx, dy, angle, scale = rng.uniform(-1, 1, 4) * (shift, shift, turn, zoom)
    x, y = x - np.float32(dx), y - np.float32(dy)
    cos, sin = np.float32(np.cos(angle) * (1 + scale)), np.float32(np.sin(angle) * (1 + scale))
    return cos * x + sin * y, cos * y - sin * x


def edge(distance: Field, width: float, size: int) -> Field:
    """0 to 1 across an edge at distance 0, over about ``width`` but never sharper than a pixel."""
    steep = np.float32(1 / max(width, 1.2 / size))
    return 0.5 + 0.5 * np.tanh(np.float32(steep) * distance)


def bump(x: Field, y: Field, centre: Sequence[float], radii: Sequence[float], angle: float = 0.0) -> Field:
    """A Gaussian of these radii (standard deviations), height 1."""
    dx, dy = x - np.float32(centre[0]), y - np.float32(centre[1])
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    u, v = (cos * dx + sin * dy) / np.float32(radii[0]), (cos * dy - sin * dx) / np.float32(radii[1])
    return np.exp(-0.5 * (u * u + v * v))


def texture(rng: Rng, size: int, cells: int, octaves: int = 1) -> Field:
    """Smooth noise, about standard normal, with ``cells`` bumps a side and finer ones at half the strength.

    The lattice of random numbers does not depend on ``size``; what is finer than the pixels is averaged away.
    """
    out = np.zeros((size, size), np.float32)
    total = 0.0
    for octave in range(octaves):
        count = cells * 2**octave
        lattice = rng.standard_normal((count + 2, count + 2), dtype=np.float32)
        # crop so that the lattice's outer half cells lie outside the image: no flat rim
        fine = Image.fromarray(lattice).resize((size, size), Image.Resampling.BICUBIC, (1, 1, count + 1, count + 1))
        out += np.float32(0.5**octave) * np.asarray(fine)
        total += 0.25**octave
    return out / np.float32(0.75 * np.sqrt(total))


def strokes(lines: Sequence[Stroke], size: int) -> Field:
    """Coverage (0 to 1) of polylines, drawn large and averaged down."""
    factor = 4 if size <= 128 else 2
    side = size * factor
    canvas = Image.new("L", (side, side))
    draw = ImageDraw.Draw(canvas)
    for points, width in lines:
        pixels = (points + 1) * (side / 2)
        thick = width * side / 2
        # a line thinner than the fine grid's pixel is drawn at one pixel and fainter
        draw.line([tuple(p) for p in pixels.tolist()], round(255 * min(1.0, thick)), max(1, round(thick)), "curve")
    return np.asarray(canvas.reduce(factor), dtype=np.float32) / 255


def blobs(outlines: Sequence[np.ndarray], size: int) -> Field:
    """Coverage (0 to 1) of filled polygons, each (m, 2) points x and y."""
    factor = 4 if size <= 128 else 2
    canvas = Image.new("L", (size * factor, size * factor))
    draw = ImageDraw.Draw(canvas)
    for outline in outlines:
        draw.polygon([tuple(p) for p in ((outline + 1) * (size * factor / 2)).tolist()], fill=255)
    return np.asarray(canvas.reduce(factor), dtype=np.float32) / 255


def bezier(points: Sequence[Sequence[float]], steps: int = 24) -> np.ndarray:
    """(steps, 2): a cubic Bezier curve through four control points."""
    t = np.linspace(0, 1, steps)[:, None]
    weights = np.hstack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])
    return np.asarray(weights @ np.asarray(points, dtype=float))


def detector(rng: Rng, image: np.ndarray, grain: float) -> np.ndarray:
    """Photon noise that grows with the root of the signal, and read-out noise.

    The noise belongs to the pixels and has the same strength at every size.
    """
    # a generator of its own: the number of pixels must not shift what is drawn afterwards
    own = np.random.Generator(np.random.SFC64(int(rng.integers(2**63))))
    noise = own.standard_normal(image.shape, dtype=np.float32)
    strength: np.ndarray = 0.4 + np.sqrt(np.clip(image, 0, 1))
    return np.asarray(image + np.float32(grain) * noise * strength)


def contrast(image: Field, gain: float, gamma: float, offset: float = 0.0) -> Field:
    """The tone curve of a device: gain, then gamma, then an offset."""
    return np.power(np.clip(image * np.float32(gain), 0, None), np.float32(gamma)) + np.float32(offset)
