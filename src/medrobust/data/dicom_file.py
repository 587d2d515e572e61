"""One DICOM file, read without trusting it: checked before memory is taken, and its values kept out of messages."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medrobust import limits
from medrobust.data.dicom_decoders import decoded
from medrobust.errors import InputError

if TYPE_CHECKING:
    from pydicom import DataElement, Dataset

PREAMBLE = 128
MAGIC = b"DICM"
PROGRAMS = (b"MZ", b"\x7fELF", b"#!", b"\xca\xfe\xba\xbe", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe")
"""First bytes of files that an operating system runs; a preamble may hold one (CVE-2019-11687)."""
DEFLATED = (b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.4.95")
"""Transfer syntaxes whose whole content is packed by zlib."""
SMALL = 2**20
"""Pixels up to which a file may be as short as it likes."""
BITS = 16
"""Most bits of a stored value."""


class DicomError(ValueError):
    """Why a file cannot be used; the text holds no value of the file."""


def is_dicom(data: bytes) -> bool:
    """Whether these bytes, 132 of them or more, begin a DICOM file."""
    return data[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC


def begins_as_dicom(file: Path) -> bool:
    """Whether a regular file begins as one of DICOM; False where it cannot be read."""
    try:
        if not file.is_file():
            return False
        with file.open("rb") as stream:
            return is_dicom(stream.read(PREAMBLE + len(MAGIC)))
    except OSError:
        return False


def need_pydicom() -> None:
    """InputError where the library that reads DICOM is not installed."""
    try:
        import pydicom.pixels  # noqa: F401
    except ImportError as error:
        raise InputError(f"DICOM files need {error.name or 'pydicom'}: pip install 'medrobust[dicom]'") from error


LOGGERS = ("pydicom", "nibabel.global")


class _Quiet:
    """How many calls have the warnings of pydicom and nibabel set aside: they quote values of the file."""

    lock = threading.Lock()
    users = 0
    before: Any = None


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and log lines of LOGGERS, in this thread and the others; all is as it was afterwards."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    with _Quiet.lock:
        if _Quiet.users == 0:
            _Quiet.before = (warnings.catch_warnings(), [logger.disabled for logger in loggers])
            _Quiet.before[0].__enter__()
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.disabled = True
        _Quiet.users += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.users -= 1
            if _Quiet.users == 0:
                _Quiet.before[0].__exit__(None, None, None)
                for logger, disabled in zip(loggers, _Quiet.before[1], strict=True):
                    logger.disabled = disabled


def header(file: Path, tags: Sequence[str]) -> Dataset | None:
    """Those elements of a DICOM file that come before its pixels; None where it is none or cannot be read."""
    import pydicom

    if not begins_as_dicom(file):
        return None
    try:
        with file.open("rb") as stream, quiet():
            limits.check(limits.IMAGE_BYTES, file.stat().st_size, "it")
            deflated = any(uid in stream.read(4096) for uid in DEFLATED)
            stream.seek(0)
            if deflated:
                elements: Dataset = parsed(stream.read())
            else:
                elements = pydicom.dcmread(stream, stop_before_pixels=True, specific_tags=list(tags))
            for tag in tags:  # pydicom reads a value, and meets its damage, at the first use
                elements.get(tag)
            return elements
    except Exception:  # pydicom raises whatever it likes on damaged bytes; reading the pixels states the reason
        return None


JP2 = b"\x00\x00\x00\x0cjP  "
"""How a JPEG 2000 file with boxes begins."""
IMAGE_GROUPS, MODALITY = (0x0028, 0x7FE0), 0x00080060
"""Pixels, and all that says how they are stored and shown, stand in these groups and in this element."""


def parsed(data: bytes) -> Dataset:
    """The elements of a DICOM file. DicomError where they, or those that describe its pixels, cannot be read."""
    import pydicom

    if not is_dicom(data):
        raise DicomError("not a DICOM file: DICM is missing at byte 128")
    if data.startswith(PROGRAMS):
        raise DicomError(
            "its first 128 bytes are the beginning of a program; overwrite them with zeros if you trust the file"
        )
    if any(uid in data[PREAMBLE:4096] for uid in DEFLATED):
        _check_unpacked(data)
    try:
        with quiet():
            elements = pydicom.dcmread(io.BytesIO(data))
            for tag in list(elements.keys()):  # pydicom reads a value, and meets its damage, at the first use
                if tag.group in IMAGE_GROUPS or tag == MODALITY:
                    elements[tag]
    except RecursionError:
        raise DicomError("its sequences are nested too deeply") from None
    except Exception as error:  # pydicom raises whatever it likes on damaged bytes
        raise DicomError(f"its DICOM elements cannot be read ({type(error).__name__})") from None
    return elements


GROUPS = ("PixelValueTransformationSequence", "FrameVOILUTSequence")
OF_GROUPS = ("RescaleSlope", "RescaleIntercept", "RescaleType", "WindowCenter", "WindowWidth", "VOILUTFunction")
"""Elements that enhanced CT and MR state in functional groups (DICOM PS3.3 C.7.6.16)."""


def parsed_frame(data: bytes, frame: int) -> Dataset:
    """``parsed``, with the rescale and the window of a frame among the elements where functional groups hold them."""
    elements = parsed(data)
    try:
        with quiet():
            found: dict[str, DataElement] = {}
            shared, each = (elements.get(f"{which}FunctionalGroupsSequence") or [] for which in ("Shared", "PerFrame"))
            for group in (*shared[:1], *each[frame : frame + 1]):
                for item in (item for name in GROUPS for item in group.get(name) or []):
                    found |= {name: item[name] for name in OF_GROUPS if name in item}
            for name, element in found.items():
                if name not in elements:
                    elements[name] = element
    except Exception as error:  # pydicom raises whatever it likes on damaged bytes
        raise DicomError(f"its functional groups cannot be read ({type(error).__name__})") from None
    return elements


def frames(elements: Dataset) -> int:
    """Number of frames; 1 where it is not stated or is no number."""
    try:
        return max(1, int(elements.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        return 1


def stored(elements: Dataset, frame: int) -> np.ndarray:
    """The stored values of one frame, (h, w) or (h, w, 3), YBR converted to RGB, as ``pydicom.pixels`` gives them.

    DicomError for sizes that the file cannot hold, before any pixel is decoded, and where no decoder reads it.
    """
    height, width = _checked(elements, frame)
    try:
        with quiet():
            pixels = decoded(elements, frame)
    except Exception as error:  # each decoder raises whatever it likes on damaged bytes
        syntax = elements.file_meta.TransferSyntaxUID
        known = syntax.name if syntax.is_transfer_syntax and not syntax.is_private else "an unknown transfer syntax"
        raise DicomError(f"no decoder reads its pixels ({known}; {type(error).__name__})") from None
    if pixels.shape[:2] != (height, width) or pixels.ndim not in (2, 3):
        raise DicomError("its pixels have another size than its header states")
    return pixels


def _check_unpacked(data: bytes) -> None:
    """InputError where the zlib stream of a deflated file is larger than a file may be; nothing of it is kept."""
    place = PREAMBLE + len(MAGIC)
    if data[place : place + 8] != b"\x02\x00\x00\x00UL\x04\x00":
        raise DicomError("it is deflated and does not state where its packed part begins")
    packed = data[place + 12 + int.from_bytes(data[place + 8 : place + 12], "little") :]
    unpack, size, chunk = zlib.decompressobj(-zlib.MAX_WBITS), 0, packed
    try:
        while chunk:
            size += len(unpack.decompress(chunk, 2**20))
            limits.check(limits.IMAGE_BYTES, size, "it, unpacked,")
            chunk = unpack.unconsumed_tail
    except zlib.error:
        raise DicomError("it is deflated and cannot be unpacked") from None


def _checked(elements: Dataset, frame: int) -> tuple[int, int]:
    """(height, width) as the header states it, after every check that needs no decoding."""
    from pydicom.uid import UID

    if "PixelData" not in elements:
        kind = "floating-point pixels" if {"FloatPixelData", "DoubleFloatPixelData"} & set(elements.dir()) else ""
        raise DicomError(f"{kind} are not read; save it with 8 to 16 bits" if kind else "it holds no pixels")
    if not isinstance(elements.PixelData, bytes):
        raise DicomError("it holds no pixels")
    syntax = getattr(elements, "file_meta", {}).get("TransferSyntaxUID")
    if not isinstance(syntax, UID) or not syntax.is_transfer_syntax:
        raise DicomError("it states no transfer syntax that is known")
    try:
        height, width, samples, allocated, bits = (
            int(elements[name].value or 0)
            for name in ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored")
        )
    except (KeyError, TypeError, ValueError):
        raise DicomError("it does not state size and depth of its pixels") from None
    if height < 1 or width < 1 or samples not in (1, 3):
        raise DicomError(f"{height} x {width} pixels of {samples} samples are not read")
    if not 1 <= bits <= BITS or allocated not in (1, 8, 16):
        raise DicomError(f"pixels of {bits} bits in {allocated} are not read; save it with 8 to 16 bits")
    pixels, held = height * width, len(elements.PixelData)
    limits.check(limits.IMAGE_PIXELS, pixels, "it")
    if pixels > SMALL:
        limits.check(limits.PIXELS_PER_BYTE, pixels // max(1, held), "it")
    if frame >= frames(elements):
        raise DicomError(f"it has no frame {frame + 1}")
    if syntax.is_encapsulated:
        _check_codestream(elements, frame, (height, width))
    elif held * 8 < pixels * samples * allocated * (frame + 1) * (2 / 3 if "422" in _photometric(elements) else 1):
        needed = pixels * samples * allocated * (frame + 1) // 8
        raise DicomError(f"its pixels are incomplete: {held:,} of {needed:,} bytes")
    return height, width


def _photometric(elements: Dataset) -> str:
    return str(elements.get("PhotometricInterpretation", ""))


def _check_codestream(elements: Dataset, frame: int, stated: tuple[int, int]) -> None:
    """DicomError where a JPEG, JPEG-LS or JPEG 2000 stream has another size than ``stated`` (height, width)."""
    from pydicom.encaps import get_frame

    try:
        with quiet():
            stream = get_frame(elements.PixelData, frame, number_of_frames=frames(elements))
    except Exception as error:  # pydicom raises whatever it likes on damaged bytes
        raise DicomError(f"its compressed pixels cannot be found ({type(error).__name__})") from None
    if stream.startswith(JP2) and not _boxes_end(stream):
        raise DicomError("the boxes around its JPEG 2000 picture are damaged")
    size = _jpeg_size(stream) if stream.startswith(b"\xff\xd8") else _jpeg_2000_size(stream)
    if size is not None and size != stated:
        raise DicomError(
            f"its compressed picture is {size[1]} x {size[0]}, its header states {stated[1]} x {stated[0]}"
        )


def _boxes_end(stream: bytes) -> bool:
    """Whether the boxes before the codestream (ITU-T T.800, I.4) lead to it; pydicom follows a box of length 0 on."""
    place = 12
    while place < len(stream) and stream[place + 4 : place + 8] != b"jp2c":
        length = int.from_bytes(stream[place : place + 4], "big")
        if length < 8:
            return False
        place += length
    return True


def _jpeg_size(stream: bytes) -> tuple[int, int] | None:
    """(height, width) of the frame header (SOFn of ITU-T T.81 and T.87); None where there is none."""
    place = 2
    while place + 9 <= len(stream):
        if stream[place] != 0xFF:
            return None
        marker, length = stream[place + 1], int.from_bytes(stream[place + 2 : place + 4], "big")
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return (
                int.from_bytes(stream[place + 5 : place + 7], "big"),
                int.from_bytes(stream[place + 7 : place + 9], "big"),
            )
        place += 1 if marker == 0xFF else 2 + length
    return None


def _jpeg_2000_size(stream: bytes) -> tuple[int, int] | None:
    """(height, width) of the SIZ marker (ITU-T T.800, A.5.1); None where there is none."""
    start = stream.find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 24 > len(stream):
        return None
    right, bottom, left, top = (int.from_bytes(stream[start + at : start + at + 4], "big") for at in (8, 12, 16, 20))
    return bottom - top, right - left
