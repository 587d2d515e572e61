"""Codes instead of names: what is written for others holds no patient identifier, file name or path unless asked for.

A code is twelve hex digits of HMAC-SHA256 (RFC 2104) under a salt that stays with the user. The same name has the same
code in all runs of one user; nobody without the salt can try names out. The salt is MEDROBUST_SALT where that is set,
else the content of ``salt_file()``, made at first need and readable by the user only. Where no file can be written the
salt is drawn for this process and lost with it. ``medrobust names`` finds the image of a code again.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import hmac
import os
import re
import secrets
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

VARIABLE = "MEDROBUST_SALT"
DIGITS = 12
LEAST = 16
"""Bytes of a salt file; a shorter one is not used."""

KINDS = ("csv", "folder", "medmnist")
"""Data that are named by a place: ``csv:FILE``."""
PATH_FIELDS = ("data", "model", "weights", "pretrained", "risk", "source", "second", "beside", "file")
"""Fields of a config that may hold a path."""

_PLACE = re.compile(r"""(?<![\w.:/\\])(?:[A-Za-z]:\\|\\\\|~?/)[^\s'",;()\[\]]*[/\\][^\s'",;:()\[\]]+""")
"""An absolute path of two parts or more in a text."""
_NUMBERS = re.compile(r"[\d./,eE+\-]+")
_CODE = re.compile(r"(data )?[0-9a-f]{12}(\.\w+)?")
"""Pattern of a code."""


def salt_file() -> Path:
    """Where the user's salt lies."""
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser() / "medrobust" / "salt"


def code(name: str, kind: str = "image") -> str:
    """Twelve hex digits for a name. kind: "image", "patient", "place"; the same name of another kind has another."""
    return hmac.new(_salt()[0], f"{kind}\x1f{name}".encode(), hashlib.sha256).hexdigest()[:DIGITS]


def is_code(name: str) -> bool:
    """Whether the name of an image is a code."""
    return _CODE.fullmatch(name) is not None


def coded(name: str) -> str:
    """The code of an image, by its name or by its code."""
    return name if is_code(name) else code(name)


def lasting() -> bool:
    """Whether another process of this user gives the same codes."""
    return _salt()[1]


def place(text: str) -> str:
    """A word of a command line, or a value of a config, with the path in it as a code.

    ``csv:/home/a/labels.csv`` to ``csv:0f…``, ``/home/a/net.pth`` to ``0f….pth``; what names no place stays as it is.
    """
    kind, colon, rest = text.partition(":")
    if colon and kind in KINDS:
        kept = kind == "medmnist" and not _names_a_place(rest.partition("@")[0])
        return text if kept or _CODE.fullmatch(rest) else f"{kind}:{code(rest, 'place')}"
    option, equals, value = text.partition("=")
    if equals and option.startswith("--"):
        return f"{option}={place(value)}"
    if text.startswith("-") or _NUMBERS.fullmatch(text) or _CODE.fullmatch(text):
        return text
    path, colon, function = text.partition(":")
    if colon and function.isidentifier():  # a network of one's own
        return f"{code(path, 'place')}:{function}" if _names_a_place(path) else text
    return code(text, "place") + Path(text).suffix[:12] if _names_a_place(text) else text


def data_name(name: str) -> str:
    """The name of a data set: as it is for phantoms, MedMNIST and breast-cancer, else a code for the file or folder."""
    public = (
        name.startswith("phantom:") or name == "breast-cancer" or re.fullmatch(r"[a-z0-9]*mnist[a-z0-9]*(@\d+)?", name)
    )
    return name if public or not name or _CODE.fullmatch(name) else f"data {code(name, 'place')}"


def text(sentence: str, names: Iterable[str] = ()) -> str:
    """A sentence with codes for ``names`` (of images, as they stand in the data) and for absolute paths."""
    for name in sorted((n for n in names if len(n) > 2 and n in sentence), key=len, reverse=True):
        sentence = sentence.replace(name, code(name))
    return _PLACE.sub(lambda match: code(match.group(), "place"), sentence)


def config(values: Mapping[str, object]) -> dict[str, object]:
    """The fields of a config, as plain JSON, without paths."""
    return {k: _field(k, v) for k, v in values.items()}


def found(values: Mapping[str, object], *names: str) -> dict[str, object]:
    """Results of a command, as plain JSON, without paths and without the names of data. names: more of these."""
    data = values.get("data")
    hidden = {*names, *([str(data)] if isinstance(data, str) else [])}
    return {k: _found(k, v, hidden) for k, v in values.items()}


def _found(name: str, value: object, hidden: set[str]) -> object:
    if isinstance(value, Mapping):
        return {k: _found(k, v, hidden) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_found(name, v, hidden) for v in value]
    if not isinstance(value, str):
        return value
    if name == "data" and ":" not in value:
        return data_name(value)
    if name in PATH_FIELDS and not any(n in value for n in hidden if " " in value):
        return place(value)
    for n in hidden:
        if "/" in n or value.endswith(f" {n}"):  # a bare word may stand in any sentence
            value = value.replace(n, data_name(n)) if "/" in n else value.removesuffix(n) + data_name(n)
    return text(value)


def provenance(values: Mapping[str, Any]) -> dict[str, object]:
    """Where a network comes from, as plain JSON, without the names of data files and without absolute paths.

    The architecture stays: it is needed to build the network again.
    """
    out = {k: v if k == "architecture" else _anywhere(v) for k, v in values.items()}
    data = values.get("data")
    if isinstance(data, Mapping) and isinstance(data.get("name"), str):
        out["data"] = {**out["data"], "name": data_name(data["name"])}
    for name in ("weights", "pretrained"):
        value = values.get(name)
        if isinstance(value, str):
            out[name] = place(value)
        elif isinstance(value, Mapping) and isinstance(value.get("file"), str):
            out[name] = {**out[name], "file": place(value["file"])}
    return out


def _field(name: str, value: object) -> object:
    if isinstance(value, Mapping):
        return config(value)
    if name in PATH_FIELDS and isinstance(value, str):
        return place(value)
    if isinstance(value, list | tuple):
        return [_field(name, v) for v in value]
    return value


def _anywhere(value: Any) -> Any:
    if isinstance(value, str):
        return text(value)
    if isinstance(value, Mapping):
        return {k: _anywhere(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_anywhere(v) for v in value]
    return value


def _names_a_place(word: str) -> bool:
    return "/" in word or "\\" in word or Path(word).suffix.lower() in SUFFIXES or word in (".", "..")


SUFFIXES = (
    ".csv",
    ".tsv",
    ".npz",
    ".py",
    ".pth",
    ".pt",
    ".th",
    ".bin",
    ".ckpt",
    ".safetensors",
    ".json",
    ".png",
    ".jpg",
    ".jpeg",
    ".tif",
    ".tiff",
    ".bmp",
    ".dcm",
    ".html",
)


def _salt() -> tuple[bytes, bool]:
    given = os.environ.get(VARIABLE)
    return (given.encode(), True) if given else _stored(salt_file())


@functools.lru_cache(maxsize=8)
def _stored(file: Path) -> tuple[bytes, bool]:
    """(the salt in that file, whether it lasts); made where it is missing."""
    with contextlib.suppress(OSError):
        if not file.exists():
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=file.parent)  # mode 0600
            try:
                with os.fdopen(handle, "w") as opened:
                    opened.write(secrets.token_hex(32))
                with contextlib.suppress(FileExistsError):  # another process was first: its salt is used
                    os.link(name, file)
            finally:
                os.unlink(name)
        salt = file.read_bytes().strip()
        if len(salt) >= LEAST:
            return salt, True
    return secrets.token_bytes(32), False
