"""A frontal chest radiograph: thorax, lungs, ribs, clavicles, spine, heart, diaphragm; pneumonia is an opacity.

Bright is dense. Each organ adds to or takes from the density seen along the ray.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from medrobust.data.phantom_canvas import Field, Rng, bump, contrast, detector, edge, grid, posed, strokes, texture

STRENGTH = (0.24, 0.52)
"""Least and greatest added density of an opacity; the lung-to-heart contrast is about 0.45."""
LETTERS = {
    -1: np.array([(-0.7, 1), (-0.7, -1), (0.3, -1), (0.7, -0.5), (0.3, 0), (-0.7, 0), (0, 0), (0.7, 1)]),
    1: np.array([(-0.6, -1), (-0.6, 1), (0.7, 1)]),
}
"""R and L: which side of the patient this is. The patient's right is on the image's left."""
RADIUS = (0.16, 0.33)


class Anatomy(NamedTuple):
    """What every image shows, diseased or not. Fields are (size, size); lungs and body lie in [0, 1]."""

    x: Field
    y: Field
    shape: dict[str, float]
    lungs: Field
    wall: Field
    floor: Field
    body: Field
    density: Field


def chest(rng: Rng, lesion: Rng, size: int, diseased: bool) -> tuple[Field, Field]:
    """The image (h, w) and the mask of its opacity (empty when normal)."""
    patient = anatomy(rng, size)
    opacity, mask = np.zeros_like(patient.x), np.zeros_like(patient.x)
    if diseased:
        opacity, mask = opacified(patient, lesion, size)
    return exposed((patient.density + opacity) * patient.body, rng, size), mask


def anatomy(rng: Rng, size: int) -> Anatomy:
    """A patient without disease."""
    x, y = posed(rng, size, shift=0.05, turn=0.06, zoom=0.06)
    shape = {part: rng.uniform(-1, 1) for part in ("width", "base", "apex", "heart", "rib")}
    lungs, wall, floor = _lungs(x, y, shape, size)
    body = _body(x, y, shape, size)
    density = _soft_tissue(x, y, shape, floor, size)
    markings = texture(rng, size, 10, 3)
    air = 0.46 + 0.04 * rng.uniform(-1, 1)
    density = density - lungs * air
    density += lungs * (0.025 * markings + _hila(x, y, rng, markings))
    density += _bones(x, y, wall, shape, rng, size)
    density += _nuisance(x, y, lungs, rng, size)
    return Anatomy(x, y, shape, lungs, wall, floor, body, density)


def _lungs(x: Field, y: Field, shape: dict[str, float], size: int) -> tuple[Field, Field, Field]:
    """Both lungs (0 to 1), the half width of the rib cage at each height, and the height of the diaphragm."""
    across = np.abs(x)
    apex, base = -0.74 + 0.04 * shape["apex"], 0.62 + 0.10 * shape["base"]
    down = np.clip((y - apex) / (base - apex), 0, 1.25)
    wall = (0.74 + 0.05 * shape["width"]) * np.sqrt(np.clip(1 - (1 - np.clip(down * 1.06, 0, 1)) ** 2.3, 0, 1)) + 0.02
    # the dome of the diaphragm: high in the middle of each half, deep in the outer angle; right stands higher
    middle = 0.36
    floor = base - 0.20 * np.clip(1 - ((across - middle) / 0.40) ** 2, -1.2, 1) - 0.04 * np.tanh(-8 * x)
    inner = 0.13 + 0.03 * np.clip(y + 0.2, 0, 1) + 0.05 * np.exp(-(((y + 0.75) / 0.2) ** 2))
    lungs = edge(wall - across, 0.025, size) * edge(across - inner, 0.03, size)
    return lungs * edge(floor - y, 0.03, size) * edge(y - apex, 0.05, size), wall, floor


def _body(x: Field, y: Field, shape: dict[str, float], size: int) -> Field:
    """The patient's outline: neck, sloping shoulders, trunk; air around it is black."""
    across = np.abs(x)
    shoulder = -0.98 + 0.30 * np.clip(across - 0.20, 0, 2) ** 1.3
    trunk = edge(y - shoulder, 0.03, size) * edge(1.02 + 0.04 * shape["width"] - across + 0.12 * y * y, 0.03, size)
    body: Field = np.maximum(trunk, edge(0.24 - across, 0.05, size) * (y < 0.2))
    return body


def _soft_tissue(x: Field, y: Field, shape: dict[str, float], floor: Field, size: int) -> Field:
    """Muscle, mediastinum, heart, aortic arch, windpipe and what lies below the diaphragm."""
    density = 0.60 - 0.10 * x * x + 0.05 * y
    density += 0.14 * _plateau(x / 0.20) * (1 - 0.35 * np.exp(-(((y + 0.75) / 0.3) ** 2)))
    big = 1 + 0.12 * shape["heart"]
    heart = edge(1 - heart_distance(x, y, big), 0.10, size)
    right_atrium = edge(1 - np.sqrt(((x + 0.05) / (0.20 * big)) ** 2 + ((y - 0.28) / 0.32) ** 2), 0.12, size)
    arch = edge(1 - np.sqrt(((x - 0.09) / 0.12) ** 2 + ((y + 0.26) / 0.15) ** 2), 0.3, size)
    density += 0.42 * np.maximum(heart, np.maximum(0.9 * right_atrium, 0.55 * arch))
    density -= 0.14 * _plateau((x - 0.01) / 0.055) * edge(-0.25 - y, 0.08, size)
    below = edge(y - floor, 0.03, size)
    density += 0.16 * below
    tissue: Field = density - 0.16 * below * bump(x, y, (0.42, 0.72), (0.16, 0.09), 0.2)
    return tissue


def heart_distance(x: Field, y: Field, big: float) -> Field:
    """Distance from the middle of a heart of relative size ``big``; 1 on its contour."""
    tilt = 0.6
    u, v = x - 0.15, y - 0.30
    along, short = math.cos(tilt) * u + math.sin(tilt) * v, math.cos(tilt) * v - math.sin(tilt) * u
    distance: Field = np.sqrt((along / (0.42 * big)) ** 2 + (short / (0.31 * big)) ** 2)
    return distance


def _hila(x: Field, y: Field, rng: Rng, markings: Field) -> Field:
    """Vessels: dense at the roots of the lungs, thinning outwards."""
    root = np.hypot((np.abs(x) - 0.14) * 1.0, (y - 0.02) * 0.8)
    strength = 0.20 * (1 + 0.35 * rng.uniform(-1, 1))
    vessels: Field = strength * np.exp(-root / 0.16) * (1 + 0.45 * markings)
    return vessels


def _bones(x: Field, y: Field, wall: Field, shape: dict[str, float], rng: Rng, size: int) -> Field:
    """Posterior and anterior ribs, clavicles, the spine. Ribs repeat at one distance, so one wave draws all."""
    across = np.abs(x)
    cage = edge(wall + 0.05 - across, 0.03, size) * edge(0.86 - y, 0.1, size) * edge(y + 0.82, 0.05, size)
    gap = 0.185 * (1 + 0.08 * shape["rib"])
    behind = y - 0.10 * np.sin(2.6 * across - 0.5) - 0.38 * across**2.4 + rng.uniform(0, gap)
    front = y + 0.62 * across - 0.30 * across**2 + rng.uniform(0, gap)
    strength = 0.10 * (1 + 0.3 * rng.uniform(-1, 1))
    ribs = strength * _band(behind, gap, 0.042, size) * edge(across - 0.07, 0.02, size)
    ribs += 0.55 * strength * _band(front, gap * 1.08, 0.048, size) * edge(across - 0.30, 0.08, size)
    rise = rng.uniform(-0.04, 0.04)
    collar = y - (-0.48 + rise - 0.26 * (across - 0.06) + 0.035 * np.sin(6.5 * (across - 0.06)))
    collar_bone = _plateau(collar / 0.032) * edge(across - 0.07, 0.02, size) * edge(0.82 - across, 0.03, size)
    blade = 0.08 * edge(across - 0.70 - 0.15 * (y + 0.5), 0.05, size) * edge(0.05 - y, 0.1, size)
    vertebra = _band(y + rng.uniform(0, 0.13), 0.13, 0.050, size)
    spine = (0.05 + 0.05 * vertebra) * _plateau(x / 0.085)
    bones: Field = ribs * cage + 0.14 * collar_bone + blade + spine
    return bones


def _band(phase: Field, gap: float, half: float, size: int) -> Field:
    """Bars of half width ``half`` every ``gap``, with the brighter rims of cortical bone."""
    away = np.abs(phase - gap * np.rint(phase / np.float32(gap)))
    soft = max(half * 0.25, 1.2 / size)
    inside = 0.5 + 0.5 * np.tanh((half - away) / soft)
    bars: Field = inside * (0.75 + 0.5 * (away / half) ** 2)
    return bars


def _plateau(z: Field) -> Field:
    """1 between -1 and 1, falling off steeply outside: exp(-z^4)."""
    plateau: Field = np.exp(-np.square(np.square(z)))
    return plateau


def _nuisance(x: Field, y: Field, lungs: Field, rng: Rng, size: int) -> Field:
    """What either class may show: breast shadows, uneven aeration, a scar, the scatter of a large patient."""
    breast, haze, scar = rng.random(3).tolist()
    out = 0.03 * texture(rng, size, 2) * lungs
    depth = rng.uniform(0.04, 0.10) * (breast < 0.4)
    for side in (-1, 1):
        out += depth * edge(0.34 - np.hypot(x - side * 0.40, y - 0.30), 0.05, size)
    place, turn, length = rng.uniform(-0.5, 0.5, 2).tolist(), rng.uniform(0, math.pi), rng.uniform(0.05, 0.15)
    out += 0.10 * (scar < 0.35) * bump(x, y, place, (length, 0.018), turn) * lungs
    tilt = rng.uniform(-0.05, 0.05, 2).tolist()
    shade: Field = out + 0.05 * (haze - 0.5) + tilt[0] * x + tilt[1] * y
    return shade


def opacified(patient: Anatomy, rng: Rng, size: int) -> tuple[Field, Field]:
    """Consolidation in one lung: a ragged patch that fills air, with a mask where it is at least a third strong."""
    x, y, lungs = patient.x, patient.y, patient.lungs
    side = 1 if rng.random() < 0.5 else -1
    centre = (side * rng.uniform(0.28, 0.55), rng.uniform(-0.40, 0.38))
    radius, strength = rng.uniform(*RADIUS), rng.uniform(*STRENGTH)
    squeeze, turn = rng.uniform(0.75, 1.3), rng.uniform(0, math.pi)
    ragged = texture(rng, size, 7, 2)
    patch = bump(x, y, centre, (radius * squeeze, radius / squeeze), turn)
    patch = np.clip(1.15 * patch * (1 + 0.35 * ragged) - 0.15, 0, 1.3) * lungs * (side * x > 0)
    return np.float32(strength) * patch, (patch > 0.33).astype(np.float32)


def exposed(density: Field, rng: Rng, size: int) -> Field:
    """The device: saturation, exposure, tone curve, grain; then collimation and a side marker."""
    exposure, gamma, lift = rng.uniform(1.35, 2.0), rng.uniform(0.85, 1.35), rng.uniform(0.0, 0.05)
    image = contrast(1 - np.exp(-exposure * np.clip(density, 0, None)), 1.0, gamma, lift)
    image = detector(rng, image, rng.uniform(0.006, 0.018))
    x, y = grid(size)
    left, right, top, bottom = (1 - rng.uniform(0, 0.14, 4) * (rng.random(4) < 0.4)).tolist()
    image = image * ((-left < x) & (x < right) & (-top < y) & (y < bottom))
    side = 1 if rng.random() < 0.5 else -1
    place = np.array([side * rng.uniform(0.72, 0.84), rng.uniform(-0.85, -0.55)])
    letter = [(0.045 * LETTERS[side] + place, 0.022)]
    marked: Field = np.maximum(image, rng.uniform(0.7, 1.0) * (rng.random() < 0.7) * strokes(letter, size))
    return marked
