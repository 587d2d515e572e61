"""The one error that means: what you gave us can not be used, and this is how to mend it."""

from __future__ import annotations


class InputError(ValueError):
    """The user's input was wrong. One line: what, where, and the mend. The CLI prints it and exits with 2."""


class CellWarning(UserWarning):
    """A finished cell of a run folder is not what was written: edited or damaged. It is computed again."""
