"""Two runs of a study beside each other: which numbers changed by more than their intervals allow."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

NUMBERS = ("value", "low", "high", "n", "status", "note")
"""Everything else in a row says what the number is of."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Change:
    """One number in both runs. gap: B - A with its 95 % interval; beyond: the interval does not hold 0."""

    before: Row
    after: Row
    gap: tuple[float, float, float]

    @property
    def beyond(self) -> bool:
        return not self.gap[1] <= 0 <= self.gap[2]

    @property
    def restated(self) -> bool:
        """It is believed now and was not, or the other way round."""
        return bool(self.before.get("status") != self.after.get("status"))


@dataclass(frozen=True)
class Diff:
    """changes: rows with a number in both; only_a, only_b: rows that the other has not."""

    changes: list[Change]
    only_a: list[Row]
    only_b: list[Row]

    @property
    def beyond(self) -> list[Change]:
        """Beyond their intervals, or believed in one run only; the largest gaps first."""
        found = [c for c in self.changes if c.beyond or c.restated]
        return sorted(found, key=lambda c: -abs(c.gap[0]))


def diff(a: Iterable[Row], b: Iterable[Row], ignore: Iterable[str] = ()) -> Diff:
    """Rows that say the same thing of A and of B, compared. ignore: columns in which they may differ (model, seed).

    The interval of a difference is made of those of its two sides (MOVER: Zou & Donner 2008, Stat Med 27:1693), which
    takes the runs for independent: with the same images in both it is too wide, never too narrow.
    """
    left, right = ({_name(r, set(ignore)): r for r in rows} for rows in (a, b))
    changes = [
        Change(left[k], right[k], gap(left[k], right[k]))
        for k in left
        if k in right and left[k]["value"] is not None and right[k]["value"] is not None
    ]
    return Diff(changes, [left[k] for k in left if k not in right], [right[k] for k in right if k not in left])


def gap(a: Row, b: Row) -> tuple[float, float, float]:
    """b - a with its 95 % interval; of numbers without an interval any difference counts."""
    d = float(b["value"]) - float(a["value"])
    if any(r.get(k) is None for r in (a, b) for k in ("low", "high")):
        return d, d, d
    down = math.hypot(b["value"] - b["low"], a["high"] - a["value"])
    up = math.hypot(b["high"] - b["value"], a["value"] - a["low"])
    return d, d - down, d + up


def _name(row: Row, ignore: set[str]) -> tuple[tuple[str, str], ...]:
    told = {k: _short(v) for k, v in row.items() if k not in NUMBERS and k not in ignore and v is not None}
    return tuple(sorted(told.items()))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
