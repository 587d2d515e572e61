"""The command as it was typed, for results and reports: codes for files and folders, or their names without paths."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence

from medrobust import private_names

CRITERIA = ("--require", "--criteria")
"""Options whose values name no file, whatever signs they hold."""
STARTS = tuple(f"{option}=" for option in CRITERIA)
ADDRESS = re.compile(r"^(?P<before>(?:--[\w-]+=)?(?:[A-Za-z]\w*:)?)(?P<path>[^,]*[/\\].*)$")


def command_line(arguments: Sequence[str] | None = None) -> str:
    """ "medrobust audit --data csv:0f1e2d3c4b5a"; with --keep-names, csv:labels.csv.

    arguments: those of this process if not given.
    """
    typed = list(sys.argv[1:] if arguments is None else arguments)
    hidden = without_folders if "--keep-names" in typed else private_names.place
    kept = [word.startswith(STARTS) or before in CRITERIA for before, word in zip(["", *typed], typed, strict=False)]
    words = [word if keep else hidden(word) for word, keep in zip(typed, kept, strict=True)]
    return shlex.join(["medrobust", *words])


def without_folders(word: str) -> str:
    """ "csv:/home/ann/study/labels.csv" to "csv:labels.csv"; sizes such as 1/255,2/255 stay."""
    address = ADDRESS.match(word)
    if address is None or re.fullmatch(r"[\d./,eE+-]+", address["path"]):
        return word
    return address["before"] + os.path.basename(re.split(r"[/\\]", address["path"].rstrip("/\\"))[-1])
