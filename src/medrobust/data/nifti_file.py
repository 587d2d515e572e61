"""One slice of a NIfTI volume (.nii, .nii.gz), across its last axis, as whole numbers from black to white.

A slice is turned by 90 degrees, as most viewers show it. Where the file stores integers, grey levels are its own;
else there are 65,535 from black to white. Values outside of what is shown are black or white.
"""

from __future__ import annotations

import io
import math
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from medrobust import limits
from medrobust.data.decode import Decoded, resize
from medrobust.data.dicom_file import quiet
from medrobust.data.dicom_pixels import AUTO, DisplayWindow, linear, window_of
from medrobust.data.fit import square
from medrobust.errors import InputError

SUFFIXES = (".nii", ".nii.gz")
GZIP = b"\x1f\x8b"
HEADER_BYTES = 540
"""Of NIfTI-2; NIfTI-1 has 348."""
PERCENTILES = (0.5, 99.5)
"""Of the values of a volume: black and white, where no window is asked for."""
MOST_LEVELS = 65535

CHANGES = {
    "percentiles": "are slices of NIfTI volumes, shown from the 0.5th to the 99.5th percentile of their volume",
    "range": "are slices of NIfTI volumes, shown from the least to the largest value of their volume",
    "volume window": "are slices of NIfTI volumes, shown in the window that was asked for",
    "first volume": "are slices of NIfTI files with several volumes; the first was read",
    "not finite": "are slices of volumes in which values are not finite; those are black",
}
"""Sentences on what reading did, after "n of m images"; see ``decode.CHANGES``."""


class VolumeShape(NamedTuple):
    width: int
    height: int
    slices: int


class Volume(NamedTuple):
    """values: (w, h, slices) as stored; value = stored * slope + intercept. low, high: percentiles of the values."""

    values: np.ndarray
    slope: float
    intercept: float
    low: float
    high: float
    changes: frozenset[str]


def is_nifti(file: Path) -> bool:
    """Whether a file's name is that of a NIfTI volume."""
    return file.name.lower().endswith(SUFFIXES)


def need_nibabel() -> None:
    """InputError where the library that reads NIfTI is not installed."""
    try:
        import nibabel  # noqa: F401
    except ImportError as error:
        raise InputError("NIfTI volumes need nibabel: pip install 'medrobust[nifti]'") from error


def volume_shape(file: Path) -> VolumeShape | None:
    """From the header of a file; None where it cannot be read."""
    try:
        with file.open("rb") as stream:
            return _header(stream.read(2**16)).shape
    except (OSError, ValueError):  # reading the pixels states the reason
        return None


def decode_nifti(data: bytes, index: int, window: str, size: int | None = None, fit: str = "stretch") -> Decoded:
    """Slice ``index`` of a volume. The other arguments are those of ``decode``. ValueError where it cannot be read."""
    volume = _volume(data, window)
    if index >= volume.values.shape[2]:
        raise ValueError(f"it has no slice {index + 1}")
    black, white = ((v - volume.intercept) / volume.slope for v in (volume.low, volume.high))
    stored = np.rot90(volume.values[:, :, index].astype(np.float64))
    whole = np.issubdtype(volume.values.dtype, np.integer) and 1 <= abs(white - black) <= MOST_LEVELS
    if whole:
        black, white = round(black), round(white)
    levels = round(abs(white - black)) if whole else MOST_LEVELS
    shown = np.nan_to_num((stored - black) / (white - black), nan=0.0, posinf=0.0, neginf=0.0)
    pixels = np.rint(shown.clip(0, 1) * levels).astype(np.int32)
    native = (pixels.shape[1], pixels.shape[0])
    pixels = square(pixels, fit)
    if size is not None:
        pixels = resize(pixels, size)
    return Decoded(pixels, native, volume.changes, levels, min(max(8, levels.bit_length()), 16))


@lru_cache(maxsize=2)
def _volume(data: bytes, window: str) -> Volume:
    """Kept, so that its slices do not unpack it again and again."""
    header = _header(data)
    count = math.prod(header.sides)
    needed = count * header.kind.itemsize
    limits.check(limits.IMAGE_PIXELS, header.shape.width * header.shape.height, "a slice of it")
    limits.check(limits.IMAGE_BYTES, header.offset + needed, "it, unpacked,")
    raw = _unpacked(data, header.offset + needed)
    held = max(0, len(raw) - header.offset)
    if held < needed:
        raise ValueError(f"its values are incomplete: {held:,} of {needed:,} bytes")
    every = np.frombuffer(raw, header.kind, count, header.offset).reshape(header.sides, order="F")
    changes = {"first volume"} if count > math.prod(header.shape) else set()
    values = every.reshape(*header.shape, -1)[..., 0]
    finite = np.isfinite(values)
    if not finite.all():
        changes.add("not finite")
    if not finite.any():
        raise ValueError("none of its values is finite")
    bounds = window_of(window)
    if isinstance(bounds, DisplayWindow):
        low, high = linear(bounds)
        changes.add("volume window")
    else:
        ends = np.percentile(values[finite].astype(np.float64), PERCENTILES if bounds == AUTO else (0, 100))
        low, high = sorted(float(end) * header.slope + header.intercept for end in ends)
        changes.add("percentiles" if bounds == AUTO else "range")
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise ValueError("nearly all of its values are the same; use --window CENTRE,WIDTH")
    return Volume(values, header.slope, header.intercept, low, high, frozenset(changes))


class _Header(NamedTuple):
    sides: tuple[int, ...]
    kind: np.dtype[Any]
    offset: int
    slope: float
    intercept: float

    @property
    def shape(self) -> VolumeShape:
        return VolumeShape(self.sides[0], self.sides[1], self.sides[2] if len(self.sides) > 2 else 1)


def _header(data: bytes) -> _Header:
    """Of a file's first bytes. ValueError where it cannot be read, or holds something else than numbers."""
    import nibabel

    raw = _unpacked(data, HEADER_BYTES)
    try:
        with quiet():
            second = int.from_bytes(raw[:4], "little") in (HEADER_BYTES, 0x1C020000)  # in either order of bytes
            kind_of_header: Any = nibabel.Nifti2Header if second else nibabel.Nifti1Header
            header = kind_of_header.from_fileobj(io.BytesIO(raw))
            slope, intercept = header.get_slope_inter()
            sides, kind = tuple(int(side) for side in header.get_data_shape()), header.get_data_dtype()
            offset = int(header.get_data_offset())
    except Exception as error:  # nibabel raises whatever it likes on damaged bytes
        raise ValueError(f"its NIfTI header cannot be read ({type(error).__name__})") from None
    if len(sides) < 2 or min(sides) < 1 or offset < 0:
        raise ValueError("its NIfTI header states no slices")
    if kind.kind not in "iuf":
        raise ValueError("its values are no single numbers; save it with integers or floating point")
    return _Header(sides, kind, offset, 1.0 if slope is None else float(slope), float(intercept or 0.0))


def _unpacked(data: bytes, most: int) -> bytes:
    """Up to so many bytes of a file that may be packed by gzip."""
    if not data.startswith(GZIP):
        return data[:most]
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, most)
    except zlib.error:
        raise ValueError("it cannot be unpacked (gzip)") from None
