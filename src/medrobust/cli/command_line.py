"""The command as it was typed, for results and reports, without the folders that say where files lie."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Sequence

ADDRESS = re.compile(r"^(?P<before>(?:--[\w-]+=)?(?:[A-Za-z]\w*:)?)(?P<path>[^,]*[/\\].*)$")


def command_line(arguments: Sequence[str] | None = None) -> str:
    """ "medrobust audit --data csv:labels.csv"; arguments: those of this process if not given."""
    typed = list(sys.argv[1:] if arguments is None else arguments)
    return shlex.join(["medrobust", *(without_folders(word) for word in typed)])


def without_folders(word: str) -> str:
    """ "csv:/home/ann/study/labels.csv" to "csv:labels.csv"; sizes such as 1/255,2/255 stay."""
    found = ADDRESS.match(word)
    if found is None or re.fullmatch(r"[\d./,eE+-]+", found["path"]):
        return word
    return found["before"] + os.path.basename(re.split(r"[/\\]", found["path"].rstrip("/\\"))[-1])
