"""Reading what was typed, and printing tables and lines."""

from __future__ import annotations

from typing import Any

from medrobust.errors import InputError


def percent(estimate: Any) -> str:
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def brief(estimate: Any, digits: int = 1) -> str:
    """In %, for tables of many columns, whose title says so."""
    if not estimate.n:
        return "no image"
    value, low, high = (f"{100 * e:.{digits}f}" for e in estimate[:3])
    return f"{value} ({low}-{high})"


def table(head: list[str], rows: list[list[str]], title: str) -> None:
    """No word is cut: two names that begin alike would read the same. In a file or a pipe no line is broken either."""
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    made = Table(title=title, title_justify="left")
    for name in head:
        made.add_column(name, overflow="fold")
    for row in rows:
        made.add_row(*row)
    console = Console()
    if not console.is_terminal:
        needed = Measurement.get(console, console.options.update(width=1000), made).maximum
        console = Console(width=max(console.width, needed))
    console.print(made)


def say(text: str) -> None:
    print(text, flush=True)


def words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(w.strip() for w in text.split(",") if w.strip())


def eps_list(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    from medrobust.studies import parse_eps

    return parse_eps(text)


def numbers(text: str | None, option: str) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(w) for w in text.split(","))
    except ValueError:
        raise InputError(f"{option} wants numbers with commas between, got {text!r}") from None


def listed(column: Any) -> list[str] | None:
    return None if column is None else [str(v) for v in column]


def at_most(limit: int) -> int | None:
    if limit < 0:
        raise InputError(f"--limit must not be negative, got {limit}; 0 attacks every test image")
    return limit or None
