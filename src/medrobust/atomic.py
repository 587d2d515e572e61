"""The one way to write a file: under a temporary name beside it, then renamed. Readers see the old file or the new one.

A link at the file's place is replaced, never followed: what it points to is not touched.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from medrobust.errors import InputError

PARTIAL = ".partial-"
"""How the name of a file begins that is still being written."""


def is_partial(name: str) -> bool:
    """Whether a file or folder of that name is one that is still being written, or was when its writer was killed."""
    return re.fullmatch(re.escape(PARTIAL) + r"[a-z0-9_]{8}", name) is not None


class DiskError(InputError):
    """The disk does not take the file. What was finished before is kept."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole, or not at all. Its folder is made where it is missing. DiskError where the disk refuses."""
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        # O_EXCL: a link that lies in wait under the temporary name is not followed
        handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o644)  # mkstemp keeps others out; results are for colleagues to read
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """As ``write_bytes``: UTF-8, newlines as they are."""
    write_bytes(path, text.encode("utf-8"))


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn what the operating system answers to a write into one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        fix = "choose another --out"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            fix = "free some space and give the same command again: what is finished is kept"
        raise DiskError(f"cannot write to {folder}: {reason}; {fix}") from error
