"""The chest phantom with up to three of five findings at once, which occur together at stated frequencies.

Every finding is added to the same anatomy as in ``phantom_chest``, with randomness of its own: whether and how one is
drawn changes nothing of the others, but where it covers them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from medrobust.data.phantom_canvas import Field, Rng, edge
from medrobust.data.phantom_chest import Anatomy, anatomy, exposed, heart_distance, opacified

SETS: tuple[tuple[str, ...], ...] = (
    (),
    (),
    ("effusion",),
    ("cardiomegaly", "effusion"),
    ("nodule",),
    ("nodule",),
    ("pneumothorax",),
    ("pneumothorax",),
    (),
    (),
    ("consolidation",),
    ("consolidation",),
    ("cardiomegaly",),
    ("cardiomegaly", "effusion"),
    ("effusion", "nodule"),
    ("consolidation", "effusion"),
    (),
    (),
    ("effusion", "pneumothorax"),
    ("cardiomegaly", "consolidation", "effusion"),
)
"""Image i has the findings SETS[i % 20]: 30 % none, 40 % one, 25 % two, 5 % three. Effusion is in 35 %, cardiomegaly
and consolidation in 20 % each, nodule and pneumothorax in 15 % each; of cardiomegaly three of four have an effusion,
and cardiomegaly never comes with a nodule or a pneumothorax."""

Drawn = tuple[Field, Field]
"""Density to add (negative for air) and mask, both (size, size)."""


def findings(rng: Rng, lesion: Rng, size: int, present: Sequence[bool]) -> tuple[Field, np.ndarray]:
    """The image (h, w), and one mask a finding (5, h, w), empty where absent. present: in the order of FINDINGS."""
    patient = anatomy(rng, size)
    density, masks = patient.density, np.zeros((len(FINDINGS), size, size), np.float32)
    own = lesion.integers(2**63, size=len(FINDINGS)).tolist()
    for place, draw in enumerate(FINDINGS.values()):
        if present[place]:
            added, masks[place] = draw(patient, np.random.Generator(np.random.SFC64(own[place])), size)
            density = density + added
    return exposed(density * patient.body, rng, size), masks


def _cardiomegaly(patient: Anatomy, rng: Rng, size: int) -> Drawn:
    """A heart that is a third to a half larger, beyond the lung that it displaces."""
    big = 1 + 0.12 * patient.shape["heart"]
    grown = rng.uniform(1.38, 1.55)
    before, after = (edge(1 - heart_distance(patient.x, patient.y, k), 0.10, size) for k in (big, big * grown))
    added = np.clip(after - before, 0, 1)
    return np.float32(0.36) * added * patient.lungs, (after > 0.5).astype(np.float32)


def _effusion(patient: Anatomy, rng: Rng, size: int) -> Drawn:
    """Fluid at the base of one lung, its surface rising towards the wall (the meniscus)."""
    side = 1 if rng.random() < 0.5 else -1
    across = side * patient.x
    level = 0.62 + 0.10 * patient.shape["base"] - rng.uniform(0.26, 0.50)
    surface = level - 0.30 * np.clip(across / 0.7, 0, 1.1) ** 3 + 0.08
    fluid = edge(patient.y - surface, 0.05, size) * (across > 0) * patient.lungs
    return np.float32(rng.uniform(0.34, 0.46)) * fluid, (fluid > 0.5).astype(np.float32)


def _nodule(patient: Anatomy, rng: Rng, size: int) -> Drawn:
    """A round, sharp shadow inside one lung."""
    side = 1 if rng.random() < 0.5 else -1
    centre = (side * rng.uniform(0.28, 0.52), rng.uniform(-0.42, 0.16))
    radius = rng.uniform(0.09, 0.14)
    shadow = edge(1 - np.hypot(patient.x - centre[0], patient.y - centre[1]) / radius, 0.25, size)
    return np.float32(rng.uniform(0.44, 0.60)) * shadow * patient.lungs, (shadow > 0.5).astype(np.float32)


def _pneumothorax(patient: Anatomy, rng: Rng, size: int) -> Drawn:
    """Air beside a lung that has come off the wall: darker, without vessels, inside it the line of the pleura."""
    side = 1 if rng.random() < 0.5 else -1
    width, reach = rng.uniform(0.20, 0.32), rng.uniform(0.0, 0.35)
    off = patient.wall - width * (1 - 0.5 * np.clip((patient.y + 0.7) / 1.2, 0, 1)) - side * patient.x
    outside = patient.lungs * (side * patient.x > 0) * edge(reach - patient.y, 0.10, size)
    air = edge(-off, 0.02, size) * outside
    line = np.exp(-np.square(off / 0.022)) * outside
    return np.float32(0.22) * line - np.float32(rng.uniform(0.16, 0.24)) * air, (air > 0.5).astype(np.float32)


def _consolidation(patient: Anatomy, rng: Rng, size: int) -> Drawn:
    """The opacity of ``phantom:chest``."""
    return opacified(patient, rng, size)


FINDINGS: dict[str, Callable[[Anatomy, Rng, int], Drawn]] = {
    "cardiomegaly": _cardiomegaly,
    "consolidation": _consolidation,
    "effusion": _effusion,
    "nodule": _nodule,
    "pneumothorax": _pneumothorax,
}
