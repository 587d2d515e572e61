"""Reading JSON that may come from anywhere: too large, nested too deep, not an object, not JSON.

InputError is a ValueError, so that a caller who expects damaged files may catch both as one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medrobust import limits
from medrobust.errors import InputError

RUN = "run"
"""The key of a results file that holds the record of the run that wrote it."""


def read(path: Path, finite: bool = False) -> Any:
    """The JSON value in a file. InputError, in one line, where there is none. finite: see ``parse``."""
    try:
        limits.check(limits.JSON_BYTES, path.stat().st_size, str(path))
        text = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error
    return parse(text, str(path), finite)


def read_object(path: Path, finite: bool = False) -> dict[str, Any]:
    """As ``read``; InputError where the value is no object."""
    return _object(read(path, finite), str(path))


def digest(results: Mapping[str, Any]) -> str:
    """sha256 of the content of results, whatever the order of keys and the layout of the file.

    Without the record of their run and the seconds that it took, so that equal numbers have equal digests.
    """
    content = {k: v for k, v in results.items() if k not in (RUN, "seconds")}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def read_results(path: Path, finite: bool = False) -> dict[str, Any]:
    """As ``read_object``; InputError too where the record of its run holds the digest of other results."""
    try:
        results = read_object(path, finite)
    except InputError as error:
        raise InputError(f"{error}; give the run's command again, it writes it anew") from None
    record = results.get(RUN)
    kept = record.get("digest") if isinstance(record, dict) else None
    if kept is not None and kept != digest(results):
        raise InputError(f"{path} is not what the run wrote, it was edited or damaged; give the run's command again")
    return results


def parse(text: bytes | str, what: str, finite: bool = False) -> Any:
    """Any JSON value; ``what`` names it in the error. finite: NaN and Infinity, which are no JSON, become None."""
    try:
        return json.loads(text, parse_constant=(lambda _: None) if finite else None)
    except RecursionError:
        raise InputError(f"{what} is JSON nested too deep to be read") from None
    except ValueError as error:
        raise InputError(f"{what} is no readable JSON: {' '.join(str(error).split())[:200]}") from error


def parse_object(text: bytes | str, what: str) -> dict[str, Any]:
    """As ``parse``; InputError where the value is no object."""
    return _object(parse(text, what), what)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{what} must hold a JSON object, it holds {type(value).__name__}")
    return value
