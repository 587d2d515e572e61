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
    """One number in both runs. gap: B - A with its 95 % interval, or three times the same where one side has none."""

    before: Row
    after: Row
    gap: tuple[float, float, float]

    @property
    def bare(self) -> bool:
        """A side has no interval: that the numbers differ says nothing."""
        return any(r.get(k) is None for r in (self.before, self.after) for k in ("low", "high"))

    @property
    def beyond(self) -> bool:
        """The interval of the gap does not hold 0."""
        return not self.bare and not self.gap[1] <= 0 <= self.gap[2]

    @property
    def strength(self) -> float:
        """The gap in half widths of its interval on the side of 0: 1 where it just touches 0, in any unit."""
        towards = self.gap[0] - self.gap[1] if self.gap[0] > 0 else self.gap[2] - self.gap[0]
        return abs(self.gap[0]) / towards if towards > 0 else math.inf if self.gap[0] else 0.0

    @property
    def restated(self) -> bool:
        """It is believed now and was not, or the other way round."""
        return bool(self.before.get("status") != self.after.get("status"))


@dataclass(frozen=True)
class Diff:
    """changes: rows with a number in both; only_a, only_b: rows that the other has not.

    without_value: rows in both of which a side has no number. merged_a, merged_b: rows that share all their
    columns with another row of the same run, of which only the last is compared.
    """

    changes: list[Change]
    only_a: list[Row]
    only_b: list[Row]
    without_value: int = 0
    merged_a: int = 0
    merged_b: int = 0

    @property
    def beyond(self) -> list[Change]:
        """Beyond their intervals, or believed in one run only; the surest first."""
        changes = [c for c in self.changes if c.beyond or c.restated]
        return sorted(changes, key=lambda c: -c.strength)

    @property
    def bare(self) -> list[Change]:
        """Numbers that differ and of which a side has no interval."""
        return [c for c in self.changes if c.bare and c.gap[0] and not c.restated]

    @property
    def held(self) -> int:
        """Numbers with an interval on both sides: those of which 1 in 20 would change by chance."""
        return sum(not c.bare for c in self.changes)


def diff(a: Iterable[Row], b: Iterable[Row], ignore: Iterable[str] = ()) -> Diff:
    """Rows that say the same thing of A and of B, compared. ignore: columns in which they may differ (model, seed).

    The interval of a difference is made of those of its two sides (MOVER: Zou & Donner 2008, Stat Med 27:1693), which
    takes the runs for independent: with the same images in both it is too wide, never too narrow.
    """
    a, b = list(a), list(b)
    left, right = ({_name(r, set(ignore)): r for r in rows} for rows in (a, b))
    both = [k for k in left if k in right]
    valued = [k for k in both if left[k]["value"] is not None and right[k]["value"] is not None]
    without = sum((left[k]["value"] is None) != (right[k]["value"] is None) for k in both)
    return Diff(
        [Change(left[k], right[k], gap(left[k], right[k])) for k in valued],
        [left[k] for k in left if k not in right],
        [right[k] for k in right if k not in left],
        without,
        len(a) - len(left),
        len(b) - len(right),
    )


def gap(a: Row, b: Row) -> tuple[float, float, float]:
    """b - a with its 95 % interval; of numbers without one, three times b - a."""
    d = float(b["value"]) - float(a["value"])
    if any(r.get(k) is None for r in (a, b) for k in ("low", "high")):
        return d, d, d
    down = math.hypot(b["value"] - b["low"], a["high"] - a["value"])
    up = math.hypot(b["high"] - b["value"], a["value"] - a["low"])
    return d, d - down, d + up


def _name(row: Row, ignore: set[str]) -> tuple[tuple[str, str], ...]:
    columns = {k: _short(v) for k, v in row.items() if k not in NUMBERS and k not in ignore and v is not None}
    return tuple(sorted(columns.items()))


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def told(rows: Iterable[Row]) -> list[tuple[str, dict[str, Any]]]:
    """What each row's number is of: its metric, and the columns in which these rows differ from one another."""
    rows = list(rows)
    columns = [k for k in dict.fromkeys(k for r in rows for k in r) if k not in (*NUMBERS, "study", "metric")]
    vary = [k for k in columns if len({str(r.get(k)) for r in rows}) > 1]
    return [(str(r["metric"]), {k: r[k] for k in vary if r.get(k) not in (None, "")}) for r in rows]
