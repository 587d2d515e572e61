"""Arrays of an .npz file, read without trusting it: only the entries that are wanted, each checked before memory is
taken, nothing unpickled."""

from __future__ import annotations

import math
import shutil
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Literal

import numpy as np

from medrobust import limits
from medrobust.data.source import KEPT_BYTES
from medrobust.data.words import quoted
from medrobust.errors import InputError

ENCRYPTED = 0x1
"""Bit of a zip entry's flags."""


def read(file: Path, wanted: Sequence[str]) -> tuple[dict[str, np.ndarray], list[str], Path | None]:
    """The wanted arrays that are there, names of all entries, and the folder of mapped arrays, if any.

    An array beyond KEPT_BYTES is unpacked to a temporary folder and mapped, so that memory stays flat; whoever calls
    removes that folder. InputError, in one line, for a file that is none, that is encrypted or damaged, or whose
    entries do not have the size that their headers state.
    """
    scratch: Path | None = None
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            entries = _entries(file.name, archive, wanted)
            names = sorted({entry.filename.removesuffix(".npy") for entry in archive.infolist()})
            total = sum(entry.file_size for entry in entries.values())
            limits.check(limits.UNPACKED_BYTES, total, f"the arrays of {file.name}, unpacked,")
            for key, entry in entries.items():
                with archive.open(entry) as stream:
                    shape, order, dtype = _header(file.name, key, entry.file_size, stream)
                    if entry.file_size <= KEPT_BYTES:
                        pixels = np.frombuffer(_exactly(stream, math.prod(shape) * dtype.itemsize), dtype)
                        arrays[key] = pixels.reshape(shape, order=order)
                        continue
                    scratch = scratch or _scratch(total)
                    target = scratch / f"{key}.raw"
                    with target.open("wb") as out:
                        shutil.copyfileobj(stream, out, 2**22)
                arrays[key] = np.memmap(target, dtype, "r", shape=shape, order=order)
    except InputError:
        _remove(scratch)
        raise
    except Exception as error:  # zipfile, its decompressors and numpy raise whatever they like on damaged bytes
        _remove(scratch)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{file.name} cannot be read as .npz ({reason}); fetch it again") from error
    return arrays, names, scratch


def _entries(name: str, archive: zipfile.ZipFile, wanted: Sequence[str]) -> dict[str, zipfile.ZipInfo]:
    entries: dict[str, zipfile.ZipInfo] = {}
    for entry in archive.infolist():
        key = entry.filename.removesuffix(".npy")
        if key not in wanted:
            continue
        if key in entries:
            raise InputError(f"{name} holds {key} twice; write it anew with numpy.savez")
        if entry.flag_bits & ENCRYPTED:
            raise InputError(f"{name} is encrypted; unpack it and write it anew with numpy.savez")
        entries[key] = entry
    return {key: entries[key] for key in wanted if key in entries}


def _header(name: str, key: str, size: int, stream: IO[bytes]) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype]:
    """Shape, order and type of an array; InputError where they do not add up to the entry's ``size`` in bytes."""
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"{key} has .npy version {version}")
    shape, fortran, dtype = reader(stream)
    if dtype.hasobject:
        raise InputError(f"{key} of {name} holds Python objects, which are not read; save numbers")
    bytes_ = math.prod(shape) * dtype.itemsize
    if any(side < 0 for side in shape) or stream.tell() + bytes_ != size:
        raise InputError(
            f"{key} of {name} states the shape {quoted(str(shape))} of {dtype}, {bytes_:,} bytes, and holds "
            f"{size - stream.tell():,}; write it anew with numpy.savez"
        )
    return shape, "F" if fortran else "C", dtype


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count or stream.read(1):
        raise ValueError(f"{len(data):,} bytes where {count:,} are stated")
    return data


def _scratch(total: int) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="medrobust-"))
    free = shutil.disk_usage(folder).free
    if total > free:
        _remove(folder)
        raise InputError(f"the arrays take {total:,} bytes unpacked, {folder.parent} has {free:,} free; set TMPDIR")
    return folder


def _remove(folder: Path | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
