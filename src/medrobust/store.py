"""Finished cells on disk: a killed run resumes, and nothing is computed twice.

DIR/cells/KEY/ holds rows.json and arrays.safetensors. KEY is a hash of everything that the result depends on.
A cell is written under a temporary name and then renamed, so that it is never incomplete. rows.json holds the sha256
of its content and of the arrays: a cell that was edited or damaged is computed again.
DIR/unfinished/KEY.safetensors holds the state of a computation that has not finished yet.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from medrobust import atomic, code_digest, json_files, manifest
from medrobust.errors import CellWarning, one_line
from medrobust.run_folder import CELLS, RunFolder

UNFINISHED = "unfinished"
"""Folder of the states of computations that have not finished yet."""

ROWS, ARRAYS = "rows.json", "arrays.safetensors"

T = TypeVar("T")

Result = tuple[Mapping[str, object], Mapping[str, np.ndarray]]
"""What a computation gives its cell: facts, plain JSON, and arrays by name."""


@dataclass(frozen=True)
class Cell:
    """One finished piece of work."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    seconds: float

    def fact(self, name: str, kind: type[T]) -> T:
        """A fact of that type. KeyError or TypeError where the cell holds none, or one of another type."""
        value = self.facts[name]
        if not isinstance(value, kind):
            raise TypeError(f"{name} of a cell is {value!r}, not of type {kind.__name__}")
        return value


class Store:
    """The cells of one run folder. Several processes may share it: the first result of a cell is kept.

    InputError where the folder holds files and no run of medrobust, DiskError where it cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.run = RunFolder.join(self.folder)
        self.cells = self.run.entry(CELLS, UNFINISHED)
        with atomic.disk_errors(self.folder):
            self.cells.mkdir(exist_ok=True)
            # a folder may exist and still not be writable: a file is written to find out
            with tempfile.TemporaryFile(dir=self.cells):
                pass

    def get(self, spec: Mapping[str, object]) -> Cell | None:
        """The cell of that spec; None where it is missing or not what was written (it is then computed again)."""
        return self.named(key(spec))

    def named(self, name: str) -> Cell | None:
        """The cell of that key, as ``get``. Warns where there is one that is not what was written."""
        return _read(self.cells / name)

    def put(self, spec: Mapping[str, object], cell: Cell) -> None:
        """Write a cell; an interrupted write leaves none."""
        from safetensors.numpy import save

        place = self.cells / key(spec)
        content = save({k: np.ascontiguousarray(v) for k, v in cell.arrays.items()})
        parts = {"spec": spec, "facts": cell.facts, "seconds": cell.seconds}
        record = json.loads(json.dumps({**parts, "arrays": hashlib.sha256(content).hexdigest()}))
        record["sha256"] = _digest(record)
        with atomic.disk_errors(self.folder):
            temporary = Path(tempfile.mkdtemp(prefix=atomic.PARTIAL, dir=self.cells))
            temporary.chmod(0o755)  # a run folder is for colleagues to read
            try:
                atomic.write_bytes(temporary / ROWS, json.dumps(record, indent=1, sort_keys=True).encode())
                atomic.write_bytes(temporary / ARRAYS, content)
                self._move(temporary, place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _move(self, temporary: Path, place: Path) -> None:
        """Rename the finished cell, unless another process has written the same one meanwhile."""
        if place.is_symlink():
            place.unlink()
        try:
            temporary.rename(place)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CellWarning)  # the warning was given when the cell was looked for
                whole = _read(place) is not None
            if not whole:
                shutil.rmtree(place)
                temporary.rename(place)

    def once(self, spec: Mapping[str, object], compute: Callable[[], Result]) -> Cell:
        """The cell of that spec: read if it is there, else computed and written.

        The code that computes it is part of its key, unless ``spec`` names it already: see ``with_code``.
        """
        spec = with_code(spec, compute)
        kept, tally = self.get(spec), _TALLY.get(None)
        if tally is not None:
            tally.count(key(spec), kept is not None)
        if kept is not None:
            return kept
        begin = time.perf_counter()
        facts, arrays = compute()
        # through JSON, so that a cell is the same whether it was read or just made
        cell = Cell(json.loads(json.dumps(facts, sort_keys=True)), arrays, time.perf_counter() - begin)
        self.put(spec, cell)
        return cell

    @contextlib.contextmanager
    def unfinished(self, spec: Mapping[str, object]) -> Iterator[Path]:
        """A file for the state of that computation: removed when the block ends without an error, else kept."""
        path = self.folder / UNFINISHED / f"{key(spec)}.safetensors"
        with atomic.disk_errors(self.folder):
            path.parent.mkdir(exist_ok=True)
        yield path
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds the states of other computations
            path.parent.rmdir()

    def sweep_leftovers(self) -> None:
        """Remove what killed processes left half-written; only when nobody else works in this folder."""
        for path in self.cells.iterdir():
            if atomic.is_partial(path.name) and path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
        self.run.sweep_leftovers()


CODE = "code"
"""The entry of a spec that names the code which computes the cell."""


def with_code(spec: Mapping[str, object], compute: Callable[..., object]) -> Mapping[str, object]:
    """``spec`` with the digest of the code that computes it; as it is where it names that already."""
    return spec if CODE in spec else {**spec, CODE: code_digest.of_function(compute)}


class Tally:
    """How many pieces of work were read from a run folder, and how many were computed."""

    def __init__(self) -> None:
        self.reused: set[str] = set()
        self.computed: set[str] = set()

    def count(self, name: str, read: bool) -> None:
        """One cell by its key; one that was computed here and read later stays computed."""
        if name not in self.computed:
            (self.reused if read else self.computed).add(name)

    def words(self) -> str:
        total = len(self.reused) + len(self.computed)
        return f"{len(self.reused)} of {total} pieces of work reused"


_TALLY: ContextVar[Tally] = ContextVar("tally")


@contextlib.contextmanager
def counting() -> Iterator[Tally]:
    """Counts the cells that are asked for inside the block, in whichever run folder."""
    token = _TALLY.set(tally := Tally())
    try:
        yield tally
    finally:
        _TALLY.reset(token)


def key(spec: Mapping[str, object]) -> str:
    """The name of a cell: a hash of everything that its result depends on."""
    return hashlib.sha256(_ENCODER.encode(spec).encode()).hexdigest()[:32]


_ENCODER = json.JSONEncoder(sort_keys=True)


class Keys:
    """Keys of specs that differ in a few values only: what they share is encoded once.

    spec: makes one of them from a list of that many values.
    """

    def __init__(self, spec: Callable[[Sequence[str]], Mapping[str, object]], values: int) -> None:
        token = uuid.uuid4().hex
        text = _ENCODER.encode(spec([f"{token}-{i}" for i in range(values)]))
        first, *rest = re.split(f'"{token}-([0-9]+)"', text)
        self._begun = hashlib.sha256(first.encode())
        self._rest = [(int(number), part) for number, part in zip(rest[::2], rest[1::2], strict=True)]

    def of(self, values: Sequence[object]) -> str:
        """``key`` of the spec with these values."""
        texts = [str(v) if type(v) is int else _ENCODER.encode(v) for v in values]
        hasher = self._begun.copy()
        hasher.update("".join([texts[i] + part for i, part in self._rest]).encode())
        return hasher.hexdigest()[:32]


def read_facts(place: Path) -> Cell | None:
    """The cell in that folder without its arrays, which are not read; None as ``Store.named``."""

    def read() -> Cell:
        content = _content(place)
        return Cell(content.facts, {}, content.seconds)

    return _checked(place, read)


def examined(place: Path) -> Mapping[str, object]:
    """The spec of the cell in that folder. ValueError, in one line, where its name or one of its digests is not that
    of its content."""
    try:
        written, arrays = _content(place), manifest.digest(place / ARRAYS)
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(one_line(error)) from error
    if arrays.sha256 != written.digest:
        raise ValueError(f"the sha256 of {ARRAYS} differs")
    if key(written.spec) != place.name:
        raise ValueError("its name is not the hash of what it was computed from")
    return written.spec


def _read(place: Path) -> Cell | None:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    def read() -> Cell:
        written = _content(place)
        content = (place / ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != written.digest:
            raise ValueError(f"the sha256 of {ARRAYS} differs")
        try:
            return Cell(written.facts, load(content), written.seconds)
        except SafetensorError as error:
            raise ValueError(str(error)) from error

    return _checked(place, read)


def _checked(place: Path, read: Callable[[], T]) -> T | None:
    """The result of ``read`` on the cell at ``place``; None where there is none or, with a warning, a damaged one."""
    if not os.path.lexists(place):
        return None
    try:
        return read()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
    warnings.warn(f"{place} is not the cell that was written: {reason}", CellWarning, stacklevel=3)
    return None


class _Written(NamedTuple):
    """The content of ROWS. digest: sha256 of the arrays."""

    spec: Mapping[str, object]
    facts: Mapping[str, object]
    seconds: float
    digest: str


def _content(place: Path) -> _Written:
    """What ROWS in that folder holds. ValueError, KeyError or TypeError where it is not what was written."""
    content = json_files.read_object(place / ROWS)
    if content.pop("sha256") != _digest(content):
        raise ValueError(f"the sha256 of {ROWS} differs")
    if not isinstance(content["spec"], dict) or not isinstance(content["facts"], dict):
        raise TypeError("its spec or its facts are no object")
    return _Written(content["spec"], content["facts"], float(content["seconds"]), str(content["arrays"]))


def _digest(content: Mapping[str, object]) -> str:
    """sha256 of the content of ROWS, as JSON gives it back, without the digest itself."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
