"""Reading what was typed, and printing tables and lines.

Everything that is printed goes through ``visible``: names of classes, files and columns come from data, and a terminal
obeys control characters. Nothing is ever read as markup.
"""

from __future__ import annotations

import codecs
import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from medrobust.errors import InputError, visible

if TYPE_CHECKING:
    from medrobust.report.schema import Unmeasured


def percent(estimate: Any) -> str:
    if estimate.low != estimate.low:  # NaN
        return f"{estimate.value:.1%} (no interval)"
    return f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def brief(estimate: Any, digits: int = 1) -> str:
    """In %, for tables of many columns, whose title says so."""
    if not estimate.n:
        return "no image"
    value, low, high = (f"{100 * e:.{digits}f}" for e in estimate[:3])
    return f"{value} (no interval)" if estimate.low != estimate.low else f"{value} ({low}-{high})"


class Screen:
    """Whether tables and lines are left out, for a command whose results are printed as JSON; and progress, too."""

    silent = False
    still = False


@contextlib.contextmanager
def silenced(silent: bool, *, progress: bool = False) -> Iterator[None]:
    """``table`` and ``say`` print nothing within, and progress: no progress either; notes and errors go to stderr."""
    before = Screen.silent, Screen.still
    Screen.silent, Screen.still = silent or Screen.silent, progress or Screen.still
    try:
        yield
    finally:
        Screen.silent, Screen.still = before


def table(head: list[str], rows: list[list[str]], title: str) -> None:
    """No word is cut: two names that begin alike would read the same. In a file or a pipe no line is broken either."""
    if Screen.silent:
        return
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table
    from rich.text import Text

    table_ = Table(title=Text(visible(title)), title_justify="left")
    for name in head:
        table_.add_column(Text(visible(name)), overflow="fold")
    for row in rows:
        table_.add_row(*(Text(visible(cell)) for cell in row))
    console = Console()
    if not console.is_terminal:
        needed = Measurement.get(console, console.options.update(width=1000), table_).maximum
        console = Console(width=max(console.width, needed))
    console.print(table_)


def say(text: str) -> None:
    if Screen.silent:
        return
    print(visible(text, keep="\n"), flush=True)


LONGEST = 900
"""Characters of an error that are printed."""


def complain(text: str) -> None:
    """Print an error: one line on stderr; the middle of one that quotes very long input is left out."""
    line = visible(" ".join(text.split()))
    if len(line) > LONGEST:
        line = f"{line[: LONGEST - 200]} … {line[-190:]}"
    print(f"medrobust: {line}", file=sys.stderr, flush=True)


ASCII = {
    "→": "->",
    "±": "+-",
    "×": "x",
    "–": "-",
    "—": "-",
    "−": "-",
    "ε": "eps",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "…": "...",
    "é": "e",
    "δ": "delta",
    "σ": "sigma",
    "ζ": "zeta",
    "²": "^2",
    "·": "*",
    "“": '"',
    "”": '"',
    "’": "'",
    "█": "#",
}
"""How the signs of our own tables are written where the terminal has only ASCII."""


def _spelled_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    bad = error.object[error.start : error.end]
    return "".join(ASCII.get(c) or c.encode("ascii", "backslashreplace").decode() for c in bad), error.end


def survive_any_terminal(*streams: TextIO) -> None:
    """From now on, what a stream's encoding lacks is spelled out instead of raising UnicodeEncodeError."""
    codecs.register_error("medrobust.spelled_out", _spelled_out)
    for stream in streams:
        reconfigure = getattr(stream, "reconfigure", None)  # a stream that a test put there may not have it
        if reconfigure is not None:
            reconfigure(errors="medrobust.spelled_out")


def guessed(why: str) -> None:
    """Say that nothing follows for a classifier that is no better than guessing; why: empty where it is better."""
    if why:
        say(f"inconclusive: the classifier is {why}; what it does under an attack has no meaning")


def words(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(w.strip() for w in text.split(",") if w.strip())


def class_map(text: str | None) -> dict[str, str] | None:
    """``neg=normal,pos=pneumonia`` to {name in the data: name of the network}."""
    if text is None:
        return None
    pairs = [part.partition("=") for part in words(text) or ()]
    wrong = next((old for old, equals, new in pairs if not (old.strip() and equals and new.strip())), None)
    if wrong is not None or not pairs:
        raise InputError(f"--map needs DATA=NETWORK pairs with commas between: neg=normal,pos=pneumonia; got {text!r}")
    named = [old.strip() for old, _, _ in pairs]
    if len(set(named)) < len(named):
        raise InputError(f"--map names a class of the data twice: {text!r}")
    return {old.strip(): new.strip() for old, _, new in pairs}


def say_left_out(parts: Sequence[Unmeasured]) -> None:
    """Print what could not be measured, a line for each reason."""
    by_reason: dict[str, list[str]] = {}
    for part in parts:
        by_reason.setdefault(part.why, []).append(part.part)
    for why, names in by_reason.items():
        say(f"left out: {'; '.join(dict.fromkeys(names))}: {why}")


def eps_fields(text: str | None) -> dict[str, object]:
    """--eps of a command that takes stored levels (4lv) and Hounsfield units (5hu), too: fields of the config."""
    from medrobust.experiments import eps_fields

    return eps_fields(text)


def eps_list(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    from medrobust.experiments import parse_eps

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
