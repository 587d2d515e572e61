"""Dermoscopy of a pigmented lesion: skin with texture, hair and glare; one lesion in the middle.

Benign: a regular border and an even colour. Malignant: a ragged border and a variegated colour (the B and C
of the ABCD rule, Nachbar et al. 1994). Pigment absorbs as melanin does: blue most, red least.
"""

from __future__ import annotations

import math

import numpy as np

from medrobust.data.phantom_canvas import (
    Field,
    Rng,
    Stroke,
    bezier,
    bump,
    contrast,
    detector,
    edge,
    grid,
    strokes,
    texture,
)

BENIGN, MALIGNANT = (0.0, 0.25), (0.48, 1.0)
"""How irregular border and colour are, 0 to 1; the classes do not overlap."""
MELANIN = (0.55, 1.0, 1.15)
"""Absorbance of red, green and blue."""
TONES = ((0.95, 0.78, 0.74), (0.90, 0.66, 0.56), (0.72, 0.50, 0.40))


def skin(rng: Rng, lesion: Rng, size: int, diseased: bool) -> tuple[np.ndarray, Field]:
    """The image (h, w, 3) and the mask of the lesion, which is there in both classes."""
    x, y = grid(size)
    image = _skin(rng, size)
    low, high = MALIGNANT if diseased else BENIGN
    cover, image = _lesion(image, x, y, lesion, lesion.uniform(low, high), size)
    image = _hair(image, rng, size)
    return _photographed(image, x, y, rng, size), (cover > 0.5).astype(np.float32)


def _skin(rng: Rng, size: int) -> np.ndarray:
    """Tone from fair to brown, blotches of blood, fine relief."""
    tone = 2 * rng.random() ** 1.5
    low = np.array(TONES[int(tone)], np.float32)
    high = np.array(TONES[min(int(tone) + 1, 2)], np.float32)
    colour = low + np.float32(tone - int(tone)) * (high - low)
    blood = 0.06 * texture(rng, size, 4, 3)[..., None] * np.array([0.2, 1.0, 0.8], np.float32)
    relief = rng.uniform(0.01, 0.03) * texture(rng, size, 28, 2)[..., None]
    return colour * np.exp(-blood - relief)


def _lesion(image: np.ndarray, x: Field, y: Field, rng: Rng, irregular: float, size: int) -> tuple[Field, np.ndarray]:
    """Coverage of the lesion, and the skin with it."""
    centre, radius = rng.uniform(-0.15, 0.15, 2).tolist(), rng.uniform(0.26, 0.55)
    border, colour = _share(irregular, rng)
    u, v = x - centre[0], y - centre[1]
    angle, away = np.arctan2(v, u), np.hypot(u, v)
    outline = _outline(angle, radius, border, rng)
    ragged = np.float32(0.008 + 0.05 * border) * texture(rng, size, 14, 2)
    soft = rng.uniform(0.03, 0.09)
    cover = edge(outline + ragged - away, soft, size)
    depth = np.clip(away / radius, 0, 1.5)
    pigment = rng.uniform(0.55, 1.35) * (1 - rng.uniform(-0.1, 0.35) * depth**2)
    network = np.abs(texture(rng, size, 22)) * rng.uniform(0.0, 0.25)
    pigment = pigment * (1 + 0.10 * texture(rng, size, 8, 2)) - network
    veil, redness = np.zeros_like(x), np.zeros_like(x)
    for patch in range(5):  # drawn in both classes, faint where the colour is even
        turn, reach = rng.uniform(0, 2 * math.pi), radius * rng.uniform(0.2, 0.8)
        place = (centre[0] + reach * math.cos(turn), centre[1] + reach * math.sin(turn))
        spot = bump(x, y, place, (radius * rng.uniform(0.15, 0.35), radius * rng.uniform(0.15, 0.35)), turn)
        strength = colour * rng.uniform(0.6, 1.0)
        if patch < 3:
            pigment = pigment + (1.6, 1.2, -0.9)[patch] * strength * spot
        elif patch == 3:
            veil = 0.75 * strength * spot
        else:
            redness = 0.8 * strength * spot
    absorbed = (np.clip(pigment, 0.05, 3.5) * cover)[..., None] * np.array(MELANIN, np.float32)
    absorbed = absorbed + (redness * cover)[..., None] * np.array([0.1, 0.9, 0.7], np.float32)
    image = image * np.exp(-absorbed)
    grey_blue = np.array([0.42, 0.46, 0.56], np.float32)
    return cover, image + (veil * cover)[..., None] * (grey_blue - image)


def _share(irregular: float, rng: Rng) -> tuple[float, float]:
    """How much of the irregularity shows in the border and how much in the colour; their mean is given."""
    lean = rng.uniform(-0.3, 0.3) * min(irregular, 1 - irregular) * 2
    return irregular + lean, irregular - lean


def _outline(angle: Field, radius: float, border: float, rng: Rng) -> Field:
    """Radius of the border at each angle: an oval with waves; finer and higher ones when irregular."""
    oval, turn = rng.uniform(0.0, 0.16), rng.uniform(0, math.pi)
    shape = 1 + oval * np.cos(2 * (angle - turn))
    for waves in (3, 4, 5, 7, 9, 12):
        height = (0.012 + 0.11 * border) * rng.uniform(0.4, 1.0) * (3 / waves) ** 0.6
        shape = shape + height * np.cos(waves * angle + rng.uniform(0, 2 * math.pi))
    return np.float32(radius) * shape


def _hair(image: np.ndarray, rng: Rng, size: int) -> np.ndarray:
    """None to many hairs, mostly along one direction, dark or fair."""
    lines: list[Stroke] = []
    along, count = rng.uniform(0, math.pi), int(rng.integers(0, 22)) * (rng.random() < 0.6)
    for _ in range(count):
        turn, length = along + rng.normal(0, 0.4), rng.uniform(0.4, 1.4)
        step = np.array([math.cos(turn), math.sin(turn)]) * length / 3
        start = rng.uniform(-1.1, 1.1, 2) - 1.5 * step
        bend = np.array([-step[1], step[0]]) * rng.normal(0, 0.5)
        points = [start, start + step + bend, start + 2 * step + bend, start + 3 * step]
        lines.append((bezier([p.tolist() for p in points], 14), rng.uniform(0.007, 0.015)))
    cover = strokes(lines, size)[..., None] * rng.uniform(0.5, 0.9)
    shade = np.array([0.16, 0.10, 0.08] if rng.random() < 0.75 else [0.85, 0.72, 0.55], np.float32)
    covered: np.ndarray = image + cover * (shade - image)
    return covered


def _photographed(image: np.ndarray, x: Field, y: Field, rng: Rng, size: int) -> np.ndarray:
    """The dermatoscope: light falling off, glare of the gel, white balance, tone curve, grain, black corners."""
    tilt = rng.uniform(-0.06, 0.06, 2).tolist()
    away = x * x + y * y
    image = image * (1.04 + tilt[0] * x + tilt[1] * y - rng.uniform(0.04, 0.22) * away)[..., None]
    for _ in range(int(rng.integers(0, 4))):  # bubbles in the gel
        place, radius = rng.uniform(-0.9, 0.9, 2).tolist(), rng.uniform(0.03, 0.08)
        ring = np.exp(-(((np.hypot(x - place[0], y - place[1]) - radius) / 0.012) ** 2))
        image = image + rng.uniform(0.1, 0.35) * ring[..., None] * (1 - image)
    if rng.random() < 0.2:  # a ruler along one side
        marks = [(np.array([(t, 0.98), (t, 0.84 if k % 5 == 0 else 0.91)]), 0.01) for k, t in _ticks(rng)]
        image = image * (1 - 0.7 * strokes(marks, size)[..., None])
    balance = np.array([rng.uniform(0.94, 1.04), 1.0, rng.uniform(0.94, 1.14)], np.float32)
    image = contrast(image * balance, rng.uniform(0.86, 1.08), rng.uniform(0.85, 1.2))
    image = detector(rng, image, rng.uniform(0.005, 0.015))
    if rng.random() < 0.25:
        image = image * edge(rng.uniform(1.05, 1.30) - np.sqrt(away), 0.03, size)[..., None]
    return image


def _ticks(rng: Rng) -> list[tuple[int, float]]:
    start = rng.uniform(-1.0, -0.9)
    return [(k, start + 0.09 * k) for k in range(22)]
