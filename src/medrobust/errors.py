"""The one error that means: what you gave us can not be used, and this is how to mend it."""

from __future__ import annotations

MOST_CHARACTERS = 240
"""Of the text of a foreign error that a line quotes."""


class InputError(ValueError):
    """The user's input was wrong. One line: what, where, and the mend. The CLI prints it and exits with 2."""


class CellWarning(UserWarning):
    """A finished cell of a run folder is not what was written: edited or damaged. It is computed again."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line of bounded length: its type, and the line of its text that tells most."""
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
