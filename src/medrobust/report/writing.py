"""How the report writes a file: whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from medrobust.errors import InputError


def replace(path: Path, text: str) -> None:
    """Written beside and renamed: a killed run leaves the old file or the new one, never half of one."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"{path} can not be written ({error.strerror}); make the folder writable or free some space"
        ) from None
