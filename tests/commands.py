"""The command line as a person calls it, in the process of the tests."""

from __future__ import annotations

import sys

import pytest

from medrobust.cli import main


def run(*arguments: object) -> int:
    """The real entry point with these arguments; its exit code."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["medrobust", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            main()
    return int(left.value.code or 0)
