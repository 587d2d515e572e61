"""Corruptions by objects on or beside the patient: hair, gel bubbles, markers, tape, the edge of the collimator."""

from __future__ import annotations

import numpy as np

from medrobust.data.corruptions.corruption import Image, fitted, side
from medrobust.data.phantom_canvas import bezier, edge, grid, strokes

HAIRS = 24
BUBBLES = 16
LETTERS: dict[str, list[list[tuple[float, float]]]] = {
    "L": [[(0, 0), (0, 1), (0.6, 1)]],
    "R": [[(0, 1), (0, 0), (0.45, 0), (0.6, 0.12), (0.6, 0.38), (0.45, 0.5), (0, 0.5)], [(0.3, 0.5), (0.6, 1)]],
}


def hair(image: Image, count: float, rng: np.random.Generator) -> Image:
    """So many (at most HAIRS) dark hairs across the skin."""
    lines, tone = [], float(rng.uniform(0.05, 0.2))
    for _ in range(HAIRS):
        start, angle = rng.uniform(-1.1, 1.1, 2), rng.uniform(0, 2 * np.pi)
        along = np.array([np.cos(angle), np.sin(angle)]) * rng.uniform(0.5, 1.6)
        across = np.array([-along[1], along[0]])
        bends = rng.normal(0, 0.15, 2)
        points = [
            start,
            start + along / 3 + bends[0] * across,
            start + along * 2 / 3 + bends[1] * across,
            start + along,
        ]
        lines.append((bezier(points), float(rng.uniform(0.012, 0.022))))
    cover = fitted(strokes(lines[: int(count)], side(image)), image) * 0.9
    return image + cover * (tone - image)


def bubbles(image: Image, count: float, rng: np.random.Generator) -> Image:
    """So many (at most BUBBLES) bubbles in the immersion gel: a bright rim and a small highlight."""
    x, y = grid(side(image))
    white = np.zeros_like(x)
    places = rng.uniform(-0.95, 0.95, (BUBBLES, 2))
    radii = rng.uniform(0.04, 0.14, BUBBLES)
    for (cx, cy), radius in list(zip(places, radii, strict=True))[: int(count)]:
        dx, dy = x - np.float32(cx), y - np.float32(cy)
        distance = np.sqrt(dx * dx + dy * dy)
        rim = np.exp(-((distance - np.float32(radius)) ** 2) / np.float32(2 * max(0.15 * radius, 0.012) ** 2))
        spot = np.exp(-((dx + radius * 0.4) ** 2 + (dy + radius * 0.4) ** 2) / np.float32(2 * (0.25 * radius) ** 2))
        white = np.maximum(white, np.maximum(0.55 * rim, 0.9 * spot).astype(np.float32))
    return image + fitted(white, image) * (1 - image)


def marker(image: Image, height: float, rng: np.random.Generator) -> Image:
    """A lead letter, L or R, of this height (a share of the side) near an upper corner."""
    letter, left = LETTERS[str(rng.choice(("L", "R")))], bool(rng.integers(2))
    inset = rng.uniform(0.08, 0.16, 2)
    tall = 2 * height  # coordinates span 2 a side
    corner = np.array([-1 + inset[0] if left else 1 - inset[0] - 0.6 * tall, -1 + inset[1]])
    lines = [(corner + tall * np.array(points, dtype=float), 0.16 * tall) for points in letter]
    cover = fitted(strokes(lines, side(image)), image)
    return image + cover * (1 - image)


def occlusion(image: Image, area: float, rng: np.random.Generator) -> Image:
    """A square of one grey (tape, a ruler, an electrode) over this share of the area."""
    x, y = grid(side(image))
    cx, cy = rng.uniform(-0.6, 0.6, 2)
    inside = np.float32(np.sqrt(area)) - np.maximum(np.abs(x - np.float32(cx)), np.abs(y - np.float32(cy)))
    cover = fitted(edge(inside, 0.0, side(image)), image)
    return image + cover * (float(rng.uniform(0, 1)) - image)


def collimation(image: Image, share: float, rng: np.random.Generator) -> Image:
    """The collimator's black edge: up to this share of the side, on each side by a factor of its own."""
    x, y = grid(side(image))
    left, right, top, bottom = 2 * share * rng.uniform(0.3, 1, 4)
    inside = np.minimum(np.minimum(x + 1 - left, 1 - x - right), np.minimum(y + 1 - top, 1 - y - bottom))
    return image * fitted(edge(inside.astype(np.float32), 0.0, side(image)), image)
