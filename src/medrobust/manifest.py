"""manifest.json: size and SHA-256 of every file that medrobust made in a run folder, written when the run is finished.

It holds no time and no path, so that the same files give the same bytes, which a signature can be made of. Left out
are the manifest itself, its signature, the lock, and the state of unfinished work.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from medrobust import atomic, json_files
from medrobust.errors import InputError

FILE = "manifest.json"
SIGNATURE = "manifest.json.sig"
"""Detached signature of FILE: 64 bytes of Ed25519 (RFC 8032)."""
EARLIER = "manifest.earlier.json"
"""The manifest before a command that is under way, or was killed."""
FORMAT = 1
UNFINISHED = ("unfinished", "training")
"""Folders of the states of computations that have not finished."""
LOCK = "medrobust-run.lock"
LEFT_OUT = (FILE, SIGNATURE, EARLIER, LOCK, *UNFINISHED)
"""Names in a run folder that no manifest lists."""


class Digest(NamedTuple):
    """Of one file. bytes: its size. sha256: 64 hex digits."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What FILE holds. run, kind: of the run folder's mark. files: by their paths in the run folder, with "/"."""

    run: str
    kind: str
    files: Mapping[str, Digest]

    def content(self) -> bytes:
        """As FILE holds it; equal manifests give equal bytes."""
        files = {name: self.files[name]._asdict() for name in sorted(self.files)}
        content = {"manifest": "medrobust run", "format": FORMAT, "run": self.run, "kind": self.kind, "files": files}
        return (json.dumps(content, indent=1) + "\n").encode()


def made(folder: Path, run: str, kind: str, entries: Iterable[str], kept: Mapping[str, Digest]) -> Manifest:
    """The manifest of the files below these entries of a run folder, and of ``kept``, which are not read again.

    What the last manifest says of files that this command did not write is kept: a change of them must still be seen.
    """
    entries = [name for name in entries if name not in LEFT_OUT]
    known = {name.rpartition("/")[0] for name in kept}
    return Manifest(run, kind, {**kept, **{name: digest(folder / name) for name in files(folder, entries, known)}})


def outside(before: Manifest, entries: Set[str]) -> dict[str, Digest]:
    """What a manifest says of files that are not below these entries of a run folder."""
    return {name: d for name, d in before.files.items() if name.partition("/")[0] not in entries}


def untouched(before: Manifest, folder: Path, entry: str, since: int) -> dict[str, Digest]:
    """What a manifest says of files in those folders below ``entry`` that were not replaced after ``since`` (ns)."""
    place = folder / entry
    old = {e.name for e in os.scandir(place) if e.stat().st_mtime_ns <= since} if place.is_dir() else set()
    parts = ((name, name.split("/")) for name in before.files)
    return {name: before.files[name] for name, p in parts if len(p) > 2 and p[0] == entry and p[1] in old}


def files(folder: Path, entries: Iterable[str], known: Set[str] = frozenset()) -> Iterator[str]:
    """Paths in ``folder`` of the files below these entries of it; links and half-written files are left out, and what
    is in the folders ``known``."""
    for entry in entries:
        place = folder / entry
        if place.is_symlink() or atomic.is_partial(entry):
            continue
        if place.is_file():
            yield entry
        for root, folders, names in os.walk(place):
            inside = Path(root)
            above = inside.relative_to(folder).as_posix()
            folders[:] = [n for n in folders if not atomic.is_partial(n) and f"{above}/{n}" not in known]
            below = (inside / name for name in names if not atomic.is_partial(name))
            yield from (
                file.relative_to(folder).as_posix() for file in below if file.is_file() and not file.is_symlink()
            )


def digest(file: Path) -> Digest:
    """Size and SHA-256 of a file, read in pieces."""
    with file.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
        return Digest(opened.tell(), sha256)


def read(file: Path) -> Manifest:
    """A manifest. InputError where it is missing, damaged or of another version."""
    raw = json_files.read_object(file)
    if raw.get("manifest") != "medrobust run" or raw.get("format") != FORMAT:
        raise InputError(f"{file} is no manifest of a run that this version reads (format {raw.get('format')!r})")
    run, kind, listed = raw.get("run"), raw.get("kind"), raw.get("files")
    if not isinstance(run, str) or not isinstance(kind, str) or not isinstance(listed, dict):
        raise InputError(f"{file} is damaged: it names no run, command or files")
    return Manifest(run, kind, {name: _digest(file, name, value) for name, value in listed.items()})


def check(folder: Path, *names: str) -> None:
    """InputError where one of these files is not the one that the run's manifest lists.

    Files that it does not list pass, and all where there is no manifest, as while a command writes the folder.
    """
    listed = read(folder / FILE).files if (folder / FILE).is_file() else {}
    for name in names:
        place = folder / name
        if name not in listed or (place.is_file() and digest(place) == listed[name]):
            continue
        what = "is not what the run wrote, it was edited or damaged" if place.is_file() else "is missing"
        raise InputError(f"{place} {what}; give the run's command again")


def _digest(file: Path, name: str, value: object) -> Digest:
    """One entry of ``files``. A path that leads out of the run folder is refused."""
    parts = name.split("/")
    size, sha256 = (value.get("bytes"), value.get("sha256")) if isinstance(value, dict) else (None, None)
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise InputError(f"{file} is damaged: {name!r} is no path in a run folder")
    if type(size) is not int or not isinstance(sha256, str) or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(f"{file} is damaged: {name} has no size or no SHA-256")
    return Digest(size, sha256)
