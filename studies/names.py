"""Names on the command line of the scripts here: one that does not exist is one line with the nearest."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from medrobust.experiments.task_options import nearest


def one_of(names: Iterable[str]) -> Callable[[str], str]:
    """For ``type=`` of an argument that takes several of these names.

    ``choices=`` is of no use there: argparse holds the whole default against it, and refuses a call without names.
    """
    known = list(names)

    def check(text: str) -> str:
        if text not in known:
            raise argparse.ArgumentTypeError(f"no {text!r}{nearest(text, known)}")
        return text

    return check
