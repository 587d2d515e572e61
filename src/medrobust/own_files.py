"""Refusing to overwrite a file that medrobust did not write: what is ours carries a sign of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from medrobust import json_files
from medrobust.errors import InputError

FIELD = "medrobust"
"""The one field of a safetensors file's metadata: a JSON object whose ``kind`` says what file of ours it is."""
HEADER_BYTES = 2**26
"""A longer header is none of ours."""
NEAR = 2**16


def metadata(kind: str, **facts: Any) -> dict[str, str]:
    """Metadata of a safetensors file of ours.

    One field, however many facts: safetensors writes several fields in a random order, and the same content must give
    the same bytes. TypeError where a fact is not plain JSON.
    """
    return {FIELD: json.dumps({"kind": kind, **facts})}


def stated(metadata: Mapping[str, Any] | None, kind: str, what: str) -> Mapping[str, Any] | None:
    """The facts that ``metadata`` of ``kind`` holds; None where it is of another kind or of another program."""
    text = (metadata or {}).get(FIELD)
    if not isinstance(text, str):
        return None
    facts = json_files.parse_object(text, what)
    return facts if facts.pop("kind", None) == kind else None


def check_safetensors(path: Path, kind: str) -> None:
    """InputError where a file at ``path`` is not a safetensors file of ours of that kind. Links may be replaced."""
    _check(path, lambda: stated(_metadata(path), kind, str(path)) is not None, f"{kind} of medrobust")


def check_json(path: Path, wanted: Callable[[Mapping[str, Any]], bool], kind: str) -> None:
    """InputError where a file at ``path`` is not a JSON object that is ``wanted``. Links may be replaced."""
    _check(path, lambda: wanted(json_files.read_object(path)), f"{kind} of medrobust")


def check_sign(path: Path, sign: bytes, kind: str) -> None:
    """InputError where a file at ``path`` does not hold those bytes near its beginning or its end."""

    def holds() -> bool:
        content = path.read_bytes()
        return sign in content[:NEAR] or sign in content[-NEAR:]

    _check(path, holds, kind)


def _check(path: Path, recognised: Callable[[], bool], kind: str) -> None:
    if not os.path.lexists(path) or path.is_symlink():
        return
    try:
        ours = path.is_file() and recognised()
    except (OSError, ValueError):
        ours = False
    if not ours:
        raise InputError(f"{path} is there and is no {kind}; it is not overwritten: give another place")


def _metadata(path: Path) -> Mapping[str, Any]:
    """The metadata in the header of a safetensors file; ValueError where it is none."""
    with path.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= HEADER_BYTES:
            raise ValueError("no safetensors file")
        header = json_files.parse_object(opened.read(length), str(path))
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}
