"""Words as people type them into tables: which of them mean "missing", which are the same, which comes first."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

MISSING = frozenset({"", "na", "n/a", "#n/a", "#na", "<na>", "nan", "-nan", "null", "#null!", "#value!", "#ref!"})
"""Cells without a value, in lower case, as spreadsheets and data frames write them. "none" is not among them: it is a
class ("no finding") in public data sets."""

NOBODY = MISSING | {"unknown", "unk", "none", "nil", "missing", "anonymous", "anonymized", "anonymised", "-", "--", "?"}
"""Cells that name no patient."""

NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def tidy(text: str) -> str:
    """One Unicode form (NFC), runs of white space as one blank, no control or format characters, no blank at the ends.

    What differs in these only looks the same on every screen and is the same word.
    """
    if text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()
    text = " ".join(unicodedata.normalize("NFC", text).split())
    return "".join(c for c in text if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Cn")).strip()


def bare(text: str) -> str:
    """A column name without case, blanks, underscores, hyphens and dots: "Patient ID" and "patient_id" are one."""
    return re.sub(r"[\W_]+", "", tidy(text).casefold())


def is_missing(text: str) -> bool:
    """Whether a cell holds no value."""
    return tidy(text).casefold() in MISSING


def number(text: str) -> Decimal | None:
    """The number that a word is, without rounding; None for any other word and for what is not finite."""
    if not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,6})?", text):
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def natural(text: str) -> tuple[tuple[tuple[str, Decimal], ...], str]:
    """A key to sort by in which "Grade 2" comes before "Grade 10"; numbers are compared as numbers, of any length."""
    parts = NUMBER.split(text)
    pairs = zip(parts[::2], [*parts[1::2], "-1"], strict=True)
    return tuple((before, Decimal(digits)) for before, digits in pairs), text


def quoted(text: str, length: int = 60) -> str:
    """A word from data for a message: quoted, control characters escaped, cut where it is long."""
    return repr(text) if len(text) <= length else f"{text[:length]!r}… ({len(text):,} characters)"
