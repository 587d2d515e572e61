"""Sizes of changes in grey levels, as files store them."""

from __future__ import annotations

from dataclasses import dataclass

EIGHT_BITS = 255


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
    def greys(self) -> float:
        """8-bit grey levels in what a pixel may hold, for what an eye sees."""
        return float(EIGHT_BITS * self.span)

    def text(self, size: float) -> str:
        """ "16/4095"."""
        count = size * self.unit
        return f"{count:{'.0f' if count >= 100 else '.3g'}}/{self.levels}"


EIGHT_BIT = GreyScale()


def grey_scale(common_levels: int | None, span: int) -> GreyScale:
    """Of images that hold so many levels, all of them; 8-bit grey levels where they differ (None)."""
    return GreyScale(EIGHT_BITS if common_levels is None else common_levels // span, span)
