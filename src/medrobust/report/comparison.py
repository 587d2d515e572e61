"""A measured share beside its control, and what the two intervals allow to be said.

Every sentence that judges a share is made from these records, so that a test can hold the sentence to its numbers:
a difference is claimed only where the two 95 % intervals do not overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from medrobust.report.words import NBSP, count, of_hundred, with_interval
from medrobust.results import Row
from medrobust.stats import Estimate

LEAST_FREQUENCY = 50
"""Images below which a share is given as a count: "84 of 100" would claim a precision that they do not have."""
WIDEST = 0.5
"""Width of a 95 % interval from which a share is given by its interval alone: its middle says nothing."""


class Relation(Enum):
    """How a share lies to its control."""

    ABOVE = "above"
    BELOW = "below"
    APART_UNKNOWN = "not told apart"
    NO_CONTROL = "no control was measured"


@dataclass(frozen=True)
class Share:
    """A share of ``n`` images with its 95 % interval; low and high are None where it has none. ok: not inconclusive."""

    value: float
    low: float | None
    high: float | None
    n: int
    ok: bool = True

    @classmethod
    def of(cls, row: Row | Estimate | None) -> Share | None:
        """None where nothing was measured: no row, no value, no image."""
        if row is None or row.value is None or math.isnan(row.value) or not row.n:
            return None
        return cls(row.value, _known(row.low), _known(row.high), row.n, isinstance(row, Estimate) or row.ok)

    @property
    def hits(self) -> int:
        return round(self.value * self.n)

    def surely_above(self, level: float) -> bool:
        return self.low is not None and self.low > level

    def surely_below(self, level: float) -> bool:
        return self.high is not None and self.high < level

    @property
    def wide(self) -> bool:
        """Its interval leaves nearly everything open."""
        return self.low is None or self.high is None or self.high - self.low > WIDEST


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def relation(share: Share, control: Share | None) -> Relation:
    """By their intervals: they are told apart where these do not overlap."""
    if control is None:
        return Relation.NO_CONTROL
    if share.low is not None and control.high is not None and share.low > control.high:
        return Relation.ABOVE
    if share.high is not None and control.low is not None and share.high < control.low:
        return Relation.BELOW
    return Relation.APART_UNKNOWN


def out_of(share: Share) -> tuple[str, str]:
    """("84", "100") from many images, ("all", "125") of all of them, ("7", "9") from few: what was counted."""
    if share.n >= LEAST_FREQUENCY and 0 < share.value < 1:
        return of_hundred(share.value), "100"
    every = share.n >= LEAST_FREQUENCY and share.value == 1
    return "all" if every else count(share.hits) if share.hits else "none", count(share.n)


def frequency(share: Share, noun: str = "images") -> str:
    """ "84 of 100 images", "all 125 images", "7 of 9 images"."""
    part, whole = out_of(share)
    return f"{part}{'' if part == 'all' else ' of'} {whole} {noun}".rstrip()


def numbers(share: Share) -> str:
    """ "84.0 % (76.1–90.5), n = 120"."""
    return f"{with_interval(share)}, n{NBSP}={NBSP}{count(share.n)}"


def in_words(share: Share, noun: str = "images") -> str:
    """ "84 of 100 images (84.0 % (76.1–90.5), n = 120)"."""
    return f"{frequency(share, noun)} ({numbers(share)})"
