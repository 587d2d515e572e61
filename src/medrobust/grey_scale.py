"""Sizes of changes in grey levels, as files store them; and the size at which a page gives its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

EIGHT_BITS = 255
UNITS = ("lv", "hu")
"""Endings of a size that is no fraction: stored levels and Hounsfield units."""


def fraction(text: str) -> float:
    """ "1/255" or "0.5" to a number. ValueError where it is none."""
    above, slash, below = text.partition("/")
    try:
        return float(above) / (float(below) if slash else 1.0)
    except ZeroDivisionError:
        raise ValueError(text) from None


@dataclass(frozen=True)
class GreyScale:
    """levels: the number of the whitest grey level that is shown, 255 for 8 bits. span: see ``Dataset.span``."""

    levels: int = EIGHT_BITS
    span: int = 1

    @property
    def unit(self) -> float:
        """Grey levels in what a pixel may hold: a size times it is a number of levels."""
        return float(self.levels * self.span)

    @property
    def grey(self) -> float:
        """One 8-bit grey level of what is shown, as a fraction of what a pixel may hold."""
        return 1 / self.greys

    @property
    def greys(self) -> float:
        """8-bit grey levels in what a pixel may hold, for what an eye sees."""
        return float(EIGHT_BITS * self.span)

    def text(self, size: float) -> str:
        """ "16/4095"."""
        count = size * self.unit
        return f"{count:{'.0f' if count >= 100 else '.3g'}}/{self.levels}"

    def size_text(self, size: float, norm: str) -> str:
        """``text``; in another norm than Linf, the length. norm: as results name it."""
        return self.text(size) if norm == "Linf" else f"{size:.3g}"


EIGHT_BIT = GreyScale()


def in_whole_levels(size: float, unit: float) -> float:
    """The nearest size that is a whole number of grey levels, at least one where it is above 0. unit: the grey levels
    in what a pixel may hold."""
    return max(round(size * unit), 1 if size else 0) / unit


def grey_scale(common_levels: int | None, span: int) -> GreyScale:
    """Of images that hold so many levels, all of them; 8-bit grey levels where they differ (None)."""
    return GreyScale(EIGHT_BITS if common_levels is None else common_levels // span, span)


NOTICED = 0.10
"""Share of the images below which a change of size is said to have had no marked effect."""


def reported_size(held: Mapping[float, float], before: float, grey: float | None) -> float:
    """The size at which numbers are given: one grey level, where that turns a tenth of the images or half of those that
    were right; else the smallest that turns half of them; else the largest.

    held: by size, above 0, the share of images that withstand it; before: at size 0. grey: one grey level as a size;
    None where the norm knows none.
    """
    sizes = sorted(held)
    if grey is not None:
        nearest = min(sizes, key=lambda e: (abs(math.log(e / grey)), e))
        if before - held[nearest] >= NOTICED or held[nearest] <= before / 2:
            return nearest
    return next((e for e in sizes if held[e] <= before / 2), sizes[-1])
