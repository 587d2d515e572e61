"""Numbers as people read them: percentages with their interval, 8-bit grey levels, natural frequencies."""

from __future__ import annotations

import math
from typing import Protocol

NBSP = "\u00a0"
NOTHING = "–"
SIGNS = "+-−"
NO_INTERVAL = "no interval"
"""Beside a number of too few images for one: the order statistics of fewer than 6 hold no median's."""


class HasInterval(Protocol):
    """A number with its 95 % interval: a row, or a share."""

    @property
    def value(self) -> float | None: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def percent(value: float | None, digits: int = 1) -> str:
    """0.912 -> "91.2 %"; None -> "–"."""
    return NOTHING if value is None else f"{100 * value:.{digits}f}{NBSP}%"


def ends(low: str, high: str) -> str:
    """Of an interval: "88.4–93.5", but "−1.2 to 3.4" where one has a sign, which a dash would hide."""
    return f"{low} to {high}" if low[0] in SIGNS or high[0] in SIGNS else f"{low}–{high}"


def bounds(low: float | None, high: float | None, digits: int = 1, scale: float = 100) -> str:
    """(0.884, 0.935) -> "(88.4–93.5)"; empty where either is undefined."""
    if low is None or high is None:
        return ""
    low_text, high_text = (f"{scale * end:.{digits}f}".replace("-", "−") for end in (low, high))
    return f"({ends(low_text, high_text)})"


def with_interval(share: HasInterval | None) -> str:
    """ "91.2 % (88.4–93.5)", the house style for every share."""
    if share is None or share.value is None:
        return NOTHING
    return f"{percent(share.value)} {bounds(share.low, share.high)}".strip()


def plain(row: HasInterval | None, digits: int = 3) -> str:
    """A number that is no percentage, AUROC or ECE: "0.948 (0.921–0.967)"."""
    if row is None or row.value is None:
        return NOTHING
    return f"{row.value:.{digits}f} {bounds(row.low, row.high, digits, 1)}".strip()


def number(value: float) -> str:
    """Three significant digits without a tail of zeros: 0.3, 1.25, 12.5, 200."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else ("∞" if value > 0 else NOTHING)
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(n: int | None) -> str:
    """12345 -> "12 345" (narrow no-break space, which no reader takes for a decimal sign)."""
    return NOTHING if n is None else f"{n:,}".replace(",", "\u202f")


def plural(n: int, one: str, many: str | None = None) -> str:
    return f"{count(n)}{NBSP}{one if n == 1 else many or one + 's'}"


def grey_levels(levels: float) -> str:
    """ "0.4 grey levels", "1 grey level"."""
    text = number(levels)
    return f"{text}{NBSP}grey level" + ("" if text == "1" else "s")


def of_hundred(value: float) -> str:
    """A share as a natural frequency out of 100; never 0 or 100 unless it is exactly that."""
    whole = math.floor(100 * value + 0.5)
    if whole == 0:
        return "fewer than 1"
    if whole == 100:
        return "more than 99"
    return str(whole)


def listing(names: list[str], last: str = "and") -> str:
    """["a", "b", "c"] -> "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def whole(text: str) -> str:
    """No line break between a number and its sign, nor inside "n = 200"."""
    return text.replace(" %", f"{NBSP}%").replace("n = ", f"n{NBSP}={NBSP}")


def duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min {rest}{NBSP}s"
    return f"{minutes // 60}{NBSP}h {minutes % 60}{NBSP}min"
