"""A run folder: the only kind of folder that commands write to, with a mark that lists what was made there.

A folder that holds files and no mark belongs to somebody else and is refused. Only entries that the mark lists are ever
replaced or removed. Links inside a run folder are refused: what they point to lies outside. One process at a time
writes to a run folder; the worker processes of a study share the lock of the process that started them.

DIR/medrobust-run.json   the mark: kind, run id, time of creation, and the entries made here
DIR/medrobust-run.lock   locked while a run is written; who holds it
DIR/manifest.json        size and SHA-256 of every entry, written when the lock is given back without an error
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from medrobust import atomic, json_files, manifest
from medrobust.errors import InputError

MARK, LOCK = "medrobust-run.json", manifest.LOCK
FORMAT = 1
CELLS = "cells"
"""Its folders are read and replaced whole, so that links inside them do no harm; there may be very many."""


class InUseError(InputError):
    """Another process writes to the run folder."""


@dataclass(frozen=True)
class Mark:
    """What MARK holds. kind: the command. entries: names of files and folders in the run folder that it made."""

    kind: str
    id: str
    created: str
    entries: tuple[str, ...] = ()

    def content(self) -> bytes:
        return (json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=1) + "\n").encode()


class RunFolder:
    """One run folder, as a context manager: locked from ``with`` to the end of its block.

    path: it need not exist, and is made when the first entry is: a command whose input is wrong leaves no folder.
    kind: the command that writes; a run of another command is refused. None: any (then a new one is of CELLS), and
    what the manifest says of files that are not written here is kept.
    opening: files that are written as soon as the run begins, content by name.
    InputError where the folder holds files of others, or is in use. DiskError where it cannot be written to.
    """

    def __init__(self, path: str | Path, kind: str | None, opening: Mapping[str, bytes] | None = None) -> None:
        self.path, self.kind, self.opening = Path(path), kind, dict(opening or {})
        self._lock: int | None = None
        self._begun = False
        self._made: list[Path] = []
        """Folders that this object made: the run folder and those above it, the lowest first."""
        self._written: set[str] = set()
        """Names of the entries that were asked for here."""
        self._before = self._examine()

    def __enter__(self) -> Self:
        if self._before is not None:
            self._take_lock()
            self._refuse_links()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._made and isinstance(error, InputError):
            self._leave_nothing_empty()
        try:
            if error is None and self._begun and self._lock is not None:
                self._write_manifest()
        finally:
            self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    @classmethod
    def join(cls, path: str | Path) -> RunFolder:
        """The run folder at ``path``, of any kind and without its lock: for cells, whose writers may be many."""
        run = cls(path, None)
        run._begin(lock=False)
        return run

    @property
    def id(self) -> str:
        """Twelve hex digits that no other run has."""
        self.begin()
        return self._mark().id

    @property
    def created(self) -> str:
        """When the run was begun for the first time: ISO 8601, UTC."""
        self.begin()
        return self._mark().created

    def begin(self) -> None:
        """Make the folder, its lock and its mark where they are missing."""
        self._begin(lock=True)

    def entry(self, *names: str) -> Path:
        """Where the (first) entry of that name is to be written, file or folder; from now on the mark lists it.

        InputError where something of that name is there that no run made, or a link.
        """
        self.begin()
        mark = self._mark()
        for name in names:
            place = self.path / name
            if name not in mark.entries and os.path.lexists(place):
                mark = self._mark()  # another process of the same study may have listed it since
            if name not in mark.entries and os.path.lexists(place):
                raise InputError(f"{place} was not made by this run; move it away or choose another --out")
            if place.is_symlink():
                raise InputError(_link(place))
        self._written.update(names)
        fresh = tuple(name for name in names if name not in mark.entries)
        if fresh:  # before they are made: a kill leaves none behind that is not listed
            self._write(dataclasses.replace(mark, entries=(*mark.entries, *fresh)))
        return self.path / names[0]

    def made(self, name: str) -> Path | None:
        """The entry of that name, where this run has made it before. Writes nothing."""
        place = self.path / name
        if self._examine() is None or name not in self._mark().entries or not os.path.lexists(place):
            return None
        if place.is_symlink():
            raise InputError(_link(place))
        return place

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write one file of the run folder, whole or not at all."""
        place = self.entry(name)
        atomic.write_bytes(place, content)
        return place

    def write_text(self, name: str, text: str) -> Path:
        """As ``write_bytes``, in UTF-8."""
        return self.write_bytes(name, text.encode("utf-8"))

    def remove(self, name: str) -> None:
        """Remove an entry that this run made, a folder with all that is in it; anything else stays."""
        self.begin()
        mark, place = self._mark(), self.path / name
        if name not in mark.entries:
            return
        with atomic.disk_errors(self.path):
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink(missing_ok=True)
        self._write(dataclasses.replace(mark, entries=tuple(e for e in mark.entries if e != name)))
        self._written.add(name)  # so that the manifest no longer lists it

    def sweep_leftovers(self) -> None:
        """Remove what killed processes left half-written; only while no other process writes here."""
        for path in self.path.iterdir():
            if atomic.is_partial(path.name) and (path.is_file() or path.is_symlink()):
                path.unlink(missing_ok=True)

    def _leave_nothing_empty(self) -> None:
        """Remove the folder that this object made, where the input was wrong before anything was computed."""
        formal = {self.path / name for name in (MARK, LOCK, *self.opening)}
        there = list(self.path.rglob("*"))
        if any(not p.is_dir() and p not in formal for p in there):
            return
        with contextlib.suppress(OSError):
            for place in formal:
                place.unlink(missing_ok=True)
            for place in sorted(there, reverse=True):  # what is in a folder comes before it
                if place not in formal:
                    place.rmdir()
            for place in self._made:
                place.rmdir()

    # -- the mark and the lock ---------------------------------------------------------------------------

    def _begin(self, lock: bool) -> None:
        if self._begun:
            return
        missing = [p for p in (self.path, *self.path.parents) if not os.path.lexists(p)]
        with atomic.disk_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        self._made = missing if lock else []
        if lock and self._lock is None:
            self._take_lock()
        state = self._examine()
        if lock and state is not None and self._before is None:
            raise InputError(f"{self.path} was made by another process meanwhile; give the command again")
        if state is None and not lock:
            self._mark_together()
        elif state is None:
            self._write(self._fresh())
        self._begun = True
        if lock:
            self._set_manifest_aside()
        for name, content in self.opening.items():
            self.write_bytes(name, content)

    def _fresh(self) -> Mark:
        created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return Mark(self.kind or CELLS, uuid.uuid4().hex[:12], created)

    def _mark_together(self) -> None:
        """Write the mark of a folder that several processes may begin to use at once: one of them writes it."""
        while self._examine() is None:
            try:
                self._take_lock()
            except InUseError:
                time.sleep(0.01)
                continue
            try:
                if self._examine() is None:
                    self._write(self._fresh())
            finally:
                self._unlock()

    def _set_manifest_aside(self) -> None:
        """While the folder is written it has no manifest: a kill leaves none that is wrong."""
        file = self.entry(manifest.FILE, manifest.SIGNATURE, manifest.EARLIER)
        if file.exists():
            os.replace(file, self.path / manifest.EARLIER)

    def _write_manifest(self) -> None:
        mark, earlier = self._mark(), self.path / manifest.EARLIER
        entries, kept = {*mark.entries, MARK}, {}
        with contextlib.suppress(InputError):  # missing or damaged: all is read again
            before = manifest.read(earlier)
            if self.kind is None:
                entries = {*self._written, MARK}
                kept = manifest.outside(before, entries)
            else:
                kept = manifest.untouched(before, self.path, CELLS, earlier.stat().st_mtime_ns)
        made = manifest.made(self.path, mark.id, mark.kind, entries, kept)
        self.write_bytes(manifest.FILE, made.content())
        earlier.unlink(missing_ok=True)

    def _examine(self) -> Mark | None:
        """The mark; None for a folder that is empty or not there yet. Writes nothing."""
        with atomic.disk_errors(self.path):
            if not os.path.lexists(self.path):
                there = next(p for p in self.path.absolute().parents if os.path.lexists(p))
                _check_writable(there)
                return None
            names = set(os.listdir(self.path))
            _check_writable(self.path)
        if MARK not in names:
            foreign = sorted(n for n in names if n != LOCK and not atomic.is_partial(n))
            if not foreign:
                return None
            if not (self.path / MARK).is_file():  # another process may have made it since
                raise InputError(
                    f"{self.path} holds files that medrobust did not make, such as {foreign[0]}; "
                    "choose a new or an empty folder for --out"
                )
        mark = self._mark()
        if self.kind is not None and mark.kind != self.kind:
            raise InputError(f"{self.path} holds a run of another command, {mark.kind}; choose another --out")
        return mark

    def _mark(self) -> Mark:
        return read_mark(self.path)

    def _write(self, mark: Mark) -> None:
        atomic.write_bytes(self.path / MARK, mark.content())

    def _take_lock(self) -> None:
        with atomic.disk_errors(self.path):
            # O_NOFOLLOW: a link that lies in wait is not followed
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            text = os.read(lock, 1000)
            os.close(lock)
            raise InUseError(f"{self.path} is in use by {_holder(text)}; wait for it or choose another --out") from None
        except OSError:
            pass  # a file system without locks: nothing can be said about others
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        content = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()
        with atomic.disk_errors(self.path):
            os.ftruncate(lock, 0)
            os.pwrite(lock, content + b"\n", 0)
        self._lock = lock

    def _refuse_links(self) -> None:
        for name in self._mark().entries:
            place = self.path / name
            if place.is_symlink():
                raise InputError(_link(place))
            if place.is_dir():
                for link in _links(place, deep=name != CELLS):
                    raise InputError(_link(link))


def read_mark(path: Path) -> Mark:
    """The mark of the run folder at ``path``. InputError where it is missing or is not one."""
    file = path / MARK
    if file.is_symlink():
        raise InputError(_link(file))
    if not file.is_file():
        raise InputError(f"{path} is no run folder of medrobust ({MARK} is missing)")
    raw = json_files.read_object(file)
    values = {k: raw.get(k) for k in ("kind", "id", "created")}
    entries = raw.get("entries")
    if raw.get("format") != FORMAT or not all(isinstance(v, str) for v in values.values()):
        raise InputError(f"{file} is not the mark of a run folder of this version; choose another --out")
    if not isinstance(entries, list) or not all(isinstance(e, str) and _is_name(e) for e in entries):
        raise InputError(f"{file} lists entries that are no names of files in {path}; choose another --out")
    return Mark(entries=tuple(entries), **{k: str(v) for k, v in values.items()})


def _is_name(text: str) -> bool:
    return text not in ("", ".", "..", MARK, LOCK) and os.path.basename(text) == text and "\0" not in text


def _links(folder: Path, deep: bool) -> Iterator[Path]:
    """Every link below ``folder``; deep: below its folders too."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif deep and entry.is_dir(follow_symlinks=False):
                yield from _links(Path(entry.path), deep)


def _link(place: Path) -> str:
    return f"{place} is a link, and links are not followed out of a run folder; remove it or choose another --out"


def _check_writable(place: Path) -> None:
    """OSError, as a write would raise it."""
    if not place.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(place))
    if not os.access(place, os.W_OK | os.X_OK):
        raise PermissionError(13, "Permission denied", str(place))


def _holder(text: bytes) -> str:
    """Who holds a lock, in words; the file may be read while it is written."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        lock = json_files.parse_object(text, "the lock")
        return f"process {int(lock['pid'])} on {lock['host']}, since {lock['since']}"
    return "another process"
