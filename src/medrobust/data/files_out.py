"""Changed images of a data set as files that hold exactly their pixels: PNG and TIFF of 8 or 16 bits, and DICOM."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medrobust import atomic
from medrobust.data.dataset import Dataset
from medrobust.data.decode import decode
from medrobust.data.dicom_file import is_dicom
from medrobust.data.dicom_out import Series, derived
from medrobust.data.dicom_pixels import AUTO, decode_dicom
from medrobust.data.files import FileSource, read_bytes
from medrobust.images import Images, as_float

TIFF = (".tif", ".tiff")


def write(
    part: Dataset, images: Images, folder: Path, codes: Sequence[str], done: Sequence[str], window: str
) -> list[str]:
    """Write ``images`` (n, c, h, w), changed images of ``part``, into ``folder``; the names of the files.

    An image from a DICOM file becomes one (``dicom_out``), one from a TIFF a TIFF, every other a PNG. codes: in place
    of the patients' names. done: what was done to each, in words. window: in which DICOM files were read.
    """
    names, series = [], None
    for i, image in enumerate(images):
        row = int(part.rows[i])
        levels = part.source.levels(row)
        pixels = (image.double() * levels).round().long().numpy() - (levels // part.span if part.surround else 0)
        file = part.source.files[row] if isinstance(part.source, FileSource) else None
        ending = ".png" if file is None else file.file.suffix.lower()
        if file is not None and file.dicom:
            series = series or Series.new()
            content, ending = read_bytes(file.file), ".dcm"
            content = derived(content, file.frame, window, pixels, series, i + 1, codes[i], done[i])
        else:
            stored = pixels.transpose(1, 2, 0).astype(np.uint8 if levels == 255 else np.uint16)
            deep = stored.shape[2] == 3 and stored.dtype == np.uint16  # which Pillow does not write
            ending = ".tif" if ending in TIFF and not deep else ".png"
            content = _tiff(stored) if ending == ".tif" else _png(stored)
        names.append(f"{i:05d}{ending}")
        atomic.write_bytes(folder / names[-1], content)
    return names


def read(folder: Path, names: Sequence[str], channels: int) -> list[Images]:
    """What is shown of such files, (1, c, h, w) each, read as any file is; grey is repeated where c is 3."""
    read_again = []
    for name in names:
        content = read_bytes(folder / name)
        made = decode_dicom(content, 0, AUTO) if is_dicom(content) else decode(content, grey=channels == 1)
        pixels = torch.from_numpy(made.pixels.astype(np.int64).clip(0, made.levels))
        planes = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
        read_again.append(as_float(planes.expand(channels, -1, -1)[None], made.levels))
    return read_again


def _tiff(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(stream, "TIFF")
    return stream.getvalue()


def _png(pixels: np.ndarray) -> bytes:
    """A PNG of (h, w, 1 or 3) uint8 or uint16; Pillow writes no colour of 16 bits."""
    height, width, channels = pixels.shape
    lines = pixels.astype(f">u{pixels.itemsize}").reshape(height, -1)
    rows = b"".join(b"\0" + line.tobytes() for line in lines)
    header = struct.pack(">IIBBBBB", width, height, 8 * pixels.itemsize, 0 if channels == 1 else 2, 0, 0, 0)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
