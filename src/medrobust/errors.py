"""The one error that means: what you gave us cannot be used, and this is how to fix it."""

from __future__ import annotations

import unicodedata

MOST_CHARACTERS = 240
"""Characters of a foreign error's text that a message quotes."""


class InputError(ValueError):
    """The user's input was wrong. One line: what, where, and the fix. The CLI prints it and exits with 2.

    Messages quote file names, cells of tables and options, so what a terminal would obey in them is escaped here.
    """

    def __init__(self, message: object = ""):
        super().__init__(visible(str(message)))


class CellWarning(UserWarning):
    """A finished cell of a run folder is not what was written: edited or damaged. It is computed again."""


def one_line(error: BaseException) -> str:
    """An error as one line of bounded length: its type, and the most informative line of its text."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    interpreter = lines and lines[0].startswith("The following operation failed in the TorchScript interpreter")
    text = (lines[-1] if interpreter else lines[0]) if lines else ""
    text = "".join(c if c.isprintable() else " " for c in text)
    if len(text) > MOST_CHARACTERS:
        text = text[:MOST_CHARACTERS] + " …"
    name = type(error).__name__
    if not text:
        return name
    return text if interpreter or text.startswith(name) else f"{name}: {text}"


def visible(text: str, keep: str = "") -> str:
    """``text`` with every character that a terminal would obey written as its escape, except those in ``keep``.

    Control characters, characters that change the direction of writing, line separators, and the halves of file names
    that are not UTF-8.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _is_obeyed(c) else c.encode("unicode_escape").decode() for c in text)


def _is_obeyed(character: str) -> bool:
    kind = unicodedata.category(character)
    # of the format characters only those that reorder text: others join letters in several scripts
    return kind in ("Cc", "Cs", "Zl", "Zp") or (kind == "Cf" and unicodedata.bidirectional(character) != "BN")
