"""A fundus photograph: orange retina in a black frame, optic disc and cup, macula, branching vessels.

Diabetic retinopathy adds haemorrhages (dark red) and hard exudates (yellow).
"""

from __future__ import annotations

import math

import numpy as np

from medrobust.data.phantom_canvas import (
    Field,
    Rng,
    Stroke,
    bezier,
    blobs,
    bump,
    contrast,
    detector,
    edge,
    grid,
    strokes,
    texture,
)

HAEMORRHAGES = (2, 14)
"""How many, from the mildest eye to the most severe."""
HAEMORRHAGE_RADIUS = (0.017, 0.056)
EXUDATES = (0, 30)
EXUDATE_RADIUS = (0.008, 0.026)
VEIN, ARTERY = (0.74, 0.42, 0.55), (0.90, 0.62, 0.70)
"""Share of red, green and blue that remains where a vessel lies."""
BLOOD = (0.55, 0.22, 0.35)
LIPID = (1.0, 0.86, 0.42)


def fundus(rng: Rng, lesion: Rng, size: int, diseased: bool) -> tuple[np.ndarray, Field]:
    """The image (h, w, 3) and the mask of its haemorrhages and exudates (empty when normal)."""
    x, y = grid(size)
    side = 1 if rng.random() < 0.5 else -1
    disc = np.array([side * rng.uniform(0.42, 0.62), rng.uniform(-0.10, 0.10)])
    macula = disc + np.array([-side * rng.uniform(0.52, 0.62), rng.uniform(0.02, 0.10)])
    retina = _retina(x, y, macula, rng, size)
    retina = _optic_disc(retina, x, y, disc, rng, size)
    for tint, lines in zip((VEIN, ARTERY), _vessels(disc, macula, side, rng), strict=True):
        retina = _tinted(retina, strokes(lines, size), tint)
    blood, lipid = np.zeros_like(x), np.zeros_like(x)
    if diseased:
        blood, lipid = _lesions(disc, macula, lesion, size)
    retina = _tinted(retina, blood * np.float32(0.9), BLOOD)
    retina = _painted(retina, lipid * np.float32(0.85), LIPID)
    image = _photographed(retina, x, y, rng, size)
    return image, np.maximum(blood, lipid)


def _retina(x: Field, y: Field, macula: np.ndarray, rng: Rng, size: int) -> np.ndarray:
    """Pigment and choroid: orange, mottled, darker at the macula."""
    red, green, blue = rng.uniform(0.68, 0.95), rng.uniform(0.28, 0.46), rng.uniform(0.08, 0.20)
    mottle = 1 + np.float32(0.045) * texture(rng, size, 5, 3)
    centre = macula.tolist()
    depth, wide = rng.uniform(0.25, 0.5), rng.uniform(0.09, 0.14)
    dark = 1 - depth * bump(x, y, centre, (wide, wide)) - 0.12 * bump(x, y, centre, (0.28, 0.26))
    colour = np.array([red, green, blue], np.float32)
    return colour * (mottle * dark)[..., None] ** np.array([0.7, 1.0, 1.0], np.float32)


def _optic_disc(retina: np.ndarray, x: Field, y: Field, disc: np.ndarray, rng: Rng, size: int) -> np.ndarray:
    """A pale yellow disc with a paler cup."""
    wide, tall, cup = rng.uniform(0.10, 0.14), rng.uniform(0.12, 0.155), rng.uniform(0.3, 0.6)
    away = np.hypot((x - float(disc[0])) / wide, (y - float(disc[1])) / tall)
    retina = _painted(retina, 0.85 * edge(1 - away, 0.15, size), (1.0, rng.uniform(0.68, 0.82), 0.42))
    return _painted(retina, 0.7 * edge(cup - away, 0.2, size), (1.0, 0.93, 0.70))


def _vessels(disc: np.ndarray, macula: np.ndarray, side: int, rng: Rng) -> tuple[list[Stroke], list[Stroke]]:
    """Veins and arteries: arcades above and below the macula, nasal trunks, and their branches."""
    kinds: tuple[list[Stroke], list[Stroke]] = ([], [])
    for kind, lines in enumerate(kinds):
        width = (0.034, 0.024)[kind]
        for half in (-1, 1):
            lift = rng.uniform(0.50, 0.68) + 0.07 * kind
            start = disc + rng.normal(0, 0.015, 2)
            arcade = [
                start,
                _beside(disc, side * rng.uniform(-0.02, 0.10), half * rng.uniform(0.30, 0.45)),
                _beside(macula, side * rng.uniform(0.0, 0.25), half * lift),
                _beside(macula, -side * rng.uniform(0.55, 0.85), half * rng.uniform(0.25, 0.60)),
            ]
            _trunk(lines, arcade, width, half, 5, rng)
            nasal = [
                start,
                _beside(disc, side * 0.02, half * 0.15),
                _beside(disc, side * 0.20, half * 0.25),
                _beside(disc, side * rng.uniform(0.30, 0.50), half * rng.uniform(0.35, 0.70)),
            ]
            _trunk(lines, nasal, 0.65 * width, half, 2, rng)
    return kinds


def _beside(point: np.ndarray, right: float, down: float) -> np.ndarray:
    shifted: np.ndarray = point + np.array([right, down])
    return shifted


def _trunk(lines: list[Stroke], control: list[np.ndarray], width: float, half: int, branches: int, rng: Rng) -> None:
    """A tapering, slightly wavy vessel, and branches that leave it to both sides."""
    curve = bezier([point.tolist() for point in control])
    wave = rng.uniform(0.004, 0.014) * np.sin(np.linspace(0, rng.uniform(8, 16), len(curve)) + rng.uniform(0, 6))
    curve[:, 1] += wave * np.linspace(0, 1, len(curve))
    for first, last, share in ((0, 9, 1.0), (8, 17, 0.78), (16, 24, 0.55)):
        lines.append((curve[first:last], width * share))
    for branch in range(branches):
        at = int(rng.integers(5, 21))
        ahead = curve[at + 1] - curve[at - 1]
        heading = math.atan2(ahead[1], ahead[0]) + (1 if branch % 2 else -1) * half * rng.uniform(0.4, 1.0)
        length, bend = rng.uniform(0.22, 0.50), rng.uniform(-1.2, 1.2)
        steps = np.linspace(0, 1, 10)
        angles = heading + bend * steps
        twig = curve[at] + np.cumsum(np.stack([np.cos(angles), np.sin(angles)], 1), 0) * (length / 10)
        lines.append((np.vstack([curve[at], twig[:6]]), 0.5 * width))
        lines.append((twig[5:], 0.32 * width))


def _lesions(disc: np.ndarray, macula: np.ndarray, rng: Rng, size: int) -> tuple[Field, Field]:
    """Coverage of haemorrhages, scattered, and of exudates, in clusters round the macula."""
    severity = rng.random()
    count = round(HAEMORRHAGES[0] + severity * (HAEMORRHAGES[1] - HAEMORRHAGES[0]) * rng.uniform(0.6, 1.0))
    spots = [_outline(_site(disc, rng), rng.uniform(*HAEMORRHAGE_RADIUS), 0.35, rng) for _ in range(count)]
    dots: list[np.ndarray] = []
    for _ in range(int(rng.integers(0, 4))):
        centre = macula + rng.normal(0, 0.25, 2)
        if np.hypot(*(centre - disc)) < 0.25:
            continue
        for _ in range(round(severity * EXUDATES[1] * rng.uniform(0.2, 0.6))):
            place = centre + rng.normal(0, 0.07, 2)
            dots.append(_outline(place, rng.uniform(*EXUDATE_RADIUS), 0.3, rng))
    return blobs(spots, size), blobs(dots, size)


def _site(disc: np.ndarray, rng: Rng) -> np.ndarray:
    """A place on the retina, clear of the optic disc."""
    while True:
        radius, angle = 0.80 * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
        place = np.array([radius * math.cos(angle), radius * math.sin(angle)])
        if np.hypot(*(place - disc)) > 0.22:
            return place


def _outline(centre: np.ndarray, radius: float, ragged: float, rng: Rng) -> np.ndarray:
    """(14, 2): a rough circle."""
    angles = np.linspace(0, 2 * math.pi, 14, endpoint=False)
    radii = radius * (1 + ragged * rng.uniform(-1, 1, 14))
    return centre + np.stack([radii * np.cos(angles), radii * np.sin(angles)], 1)


def _tinted(image: np.ndarray, cover: Field, left: tuple[float, float, float]) -> np.ndarray:
    """Absorb: where ``cover`` is 1 only the share ``left`` of each colour remains."""
    tinted: np.ndarray = image * (1 - cover[..., None] * (1 - np.array(left, np.float32)))
    return tinted


def _painted(image: np.ndarray, cover: Field, colour: tuple[float, float, float]) -> np.ndarray:
    """Cover with a colour."""
    painted: np.ndarray = image + cover[..., None] * (np.array(colour, np.float32) - image)
    return painted


def _photographed(retina: np.ndarray, x: Field, y: Field, rng: Rng, size: int) -> np.ndarray:
    """The camera: uneven light, haze, dust, white balance, tone curve, grain, and the round frame with a notch."""
    gaze = rng.uniform(-0.25, 0.25, 2).tolist()
    light = 1.06 - rng.uniform(0.15, 0.45) * ((x - gaze[0]) ** 2 + (y - gaze[1]) ** 2)
    image = retina * light[..., None]
    haze = rng.uniform(0.0, 0.16) * (rng.random() < 0.6)
    image = _painted(image, np.full_like(x, haze), (0.85, 0.65, 0.45))
    for _ in range(int(rng.integers(0, 3))):  # dust on the lens: soft, grey, wider than a haemorrhage
        spot = bump(x, y, rng.uniform(-0.7, 0.7, 2).tolist(), (rng.uniform(0.03, 0.06),) * 2)
        image = image * (1 - rng.uniform(0.1, 0.3) * spot[..., None])
    glare = rng.uniform(0.0, 0.25) * (rng.random() < 0.4)
    angle = rng.uniform(0, 2 * math.pi)
    image = _painted(
        image, glare * bump(x, y, (0.95 * math.cos(angle), 0.95 * math.sin(angle)), (0.3, 0.3)), (1.0, 0.9, 0.75)
    )
    balance = np.array([1.0, rng.uniform(0.9, 1.1), rng.uniform(0.8, 1.3)], np.float32)
    image = contrast(image * balance, rng.uniform(0.75, 1.08), rng.uniform(0.9, 1.25))
    image = detector(rng, image, rng.uniform(0.006, 0.018))
    radius, cut = rng.uniform(0.90, 1.02), rng.uniform(0.82, 1.2)
    frame = edge(radius - np.hypot(x, y), 0.012, size) * (np.abs(y) < cut)
    turn = rng.uniform(-0.9, 0.9)
    notch = np.hypot(x - radius * math.cos(turn), y - radius * math.sin(turn)) < 0.045
    framed: np.ndarray = image * np.maximum(frame, notch * (rng.random() < 0.5) * 0.8)[..., None]
    return framed
