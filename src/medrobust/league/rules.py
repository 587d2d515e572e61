"""What all entries of a league table have in common: attack, sizes, images."""

from __future__ import annotations

ATTACK = "auto"
SETTINGS = {"steps": 100, "queries": 1000}
"""Of ``auto``: its defaults, which are its definition."""
NORM = "linf"
IMAGES = 60
"""Test images that are attacked, drawn by class; all where there are fewer."""
SEED = 0
"""Of the attack, and of the draw of the images."""
SMALL = 32
"""Pixels a side up to which images are attacked at larger sizes."""


def sizes(px: int) -> tuple[float, ...]:
    """Linf sizes at which images of ``px`` a side are attacked, as fractions of the pixel range, ascending.

    With more pixels the same size of each does more: large images are attacked at half the sizes.
    """
    greys = (1.0, 2.0, 4.0, 8.0) if px <= SMALL else (0.5, 1.0, 2.0, 4.0)
    return tuple(g / 255 for g in greys)


def reference(px: int) -> float:
    """The size by which entries are ordered: the third."""
    return sizes(px)[2]
