"""Reading JSON that may come from anywhere: too large, nested too deep, not an object, not JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from medrobust import limits
from medrobust.errors import InputError


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file. InputError, in one line, where there is none."""
    try:
        limits.check(limits.JSON_BYTES, path.stat().st_size, str(path))
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return parse_object(text, str(path))


def parse_object(text: bytes | str, what: str) -> dict[str, Any]:
    """The JSON object that ``text`` holds; ``what`` names it in the error."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise InputError(f"{what} is JSON nested too deep to be read") from None
    except ValueError as error:
        raise InputError(f"{what} is no readable JSON: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(value, dict):
        raise InputError(f"{what} must hold a JSON object, it holds {type(value).__name__}")
    return value
