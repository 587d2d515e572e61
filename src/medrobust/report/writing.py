"""How the report writes its files: each whole or not at all, and never over a file that is not ours."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from medrobust import atomic, own_files
from medrobust.run_folder import RunFolder, read_mark


def write_files(folder: Path, files: Mapping[str, str | bytes | None], *, locked: bool = False) -> None:
    """Write files, content by name, into a run; one of content None is removed, where a run made it.

    locked: the caller holds the lock of the folder, and still computes.

    InputError where the folder is no run folder, or is in use by another.
    """
    read_mark(folder)
    with contextlib.nullcontext(RunFolder.join(folder)) if locked else RunFolder(folder, None) as run:
        for name, content in files.items():
            if content is None:
                run.remove(name)
                continue
            run.write_bytes(name, content.encode("utf-8") if isinstance(content, str) else content)


def write_export(path: Path, content: bytes, sign: bytes) -> None:
    """Write a file that the user names. InputError where a file is there that does not hold the sign of an export."""
    own_files.check_sign(path, sign, "export of this kind")
    atomic.write_bytes(path, content)
