"""Finished pieces of work on disk: a run that was killed goes on where it was, and nothing is computed twice.

DIR/cells/KEY/ holds rows.json and arrays.safetensors. KEY is a hash of everything that the result depends on.
A cell is written under a temporary name and then renamed: it is there whole, or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medrobust.errors import InputError

HALF = ".half-"
"""How the temporary name of a file begins that is not whole yet."""


class DiskError(InputError):
    """The run folder takes no more: nobody's cell is at fault, and what is finished is kept."""


@dataclass(frozen=True)
class Cell:
    """One finished piece of work."""

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    seconds: float


class Store:
    """The cells of one run folder. Two processes may share it: whoever finishes a cell first keeps it."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.cells = self.folder / "cells"
        with writing(self.folder):
            self.cells.mkdir(parents=True, exist_ok=True)
            # asks the disk itself: a folder may be there and still not take a file
            with tempfile.TemporaryFile(dir=self.cells):
                pass

    def get(self, spec: Mapping[str, Any]) -> Cell | None:
        """The cell of that spec, or None where it is not there or can not be read (it is then made again)."""
        return self.named(key(spec))

    def named(self, name: str) -> Cell | None:
        """The cell of that key, as ``get``."""
        from safetensors.numpy import load_file

        place = self.cells / name
        try:
            written = json.loads((place / "rows.json").read_text())
            arrays = load_file(place / "arrays.safetensors")
            return Cell(written["facts"], arrays, written["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        except Exception as error:
            if type(error).__name__ != "SafetensorError":  # its own base is Exception
                raise
            return None

    def put(self, spec: Mapping[str, Any], cell: Cell) -> None:
        """Write a cell whole, or not at all."""
        from safetensors.numpy import save

        place = self.cells / key(spec)
        with writing(self.folder):
            temporary = Path(tempfile.mkdtemp(prefix=".", dir=self.cells))
            temporary.chmod(0o755)  # a run folder is for colleagues to read
            try:
                told = {"spec": spec, "facts": cell.facts, "seconds": cell.seconds}
                _write(temporary / "rows.json", json.dumps(told, indent=1, sort_keys=True).encode())
                arrays = {k: np.ascontiguousarray(v) for k, v in cell.arrays.items()}
                _write(temporary / "arrays.safetensors", save(arrays))
                try:
                    temporary.rename(place)
                except OSError as error:
                    if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                        raise
                    if self.get(spec) is None:  # what is there can not be read
                        shutil.rmtree(place)
                        temporary.rename(place)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def once(
        self, spec: Mapping[str, Any], compute: Callable[[], tuple[dict[str, Any], dict[str, np.ndarray]]]
    ) -> Cell:
        """The cell of that spec: read if it is there, else computed and written."""
        found = self.get(spec)
        if found is not None:
            return found
        begin = time.perf_counter()
        facts, arrays = compute()
        # through JSON, so that a cell is the same whether it was read or just made
        cell = Cell(json.loads(json.dumps(facts, sort_keys=True)), arrays, time.perf_counter() - begin)
        self.put(spec, cell)
        return cell

    @contextlib.contextmanager
    def unfinished(self, spec: Mapping[str, Any]) -> Iterator[Path]:
        """A file for where that piece of work stands on its way: removed once the block is through, else it stays."""
        path = self.folder / f"unfinished-{key(spec)}.safetensors"
        yield path
        path.unlink(missing_ok=True)

    def sweep_leftovers(self) -> None:
        """Remove what killed processes left half-written; only when nobody else works in this folder."""
        for path in self.cells.glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
        for path in self.folder.glob(f"{HALF}*"):
            path.unlink(missing_ok=True)


def key(spec: Mapping[str, Any]) -> str:
    """The name of a cell: a hash of everything that its result depends on."""
    return hashlib.sha256(json.dumps(spec, sort_keys=True, allow_nan=True).encode()).hexdigest()[:32]


def write_whole(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, then rename: readers see the old one or the new one."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=HALF, dir=path.parent)
        os.close(handle)
        try:
            _write(Path(name), content)
            os.chmod(name, 0o644)
            os.replace(name, path)
        finally:
            Path(name).unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns what a disk may answer into one clear line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        mend = "choose another --out"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            mend = "free some space and give the same command again: what is finished is kept"
        raise DiskError(f"can not write to {folder}: {reason}; {mend}") from error
