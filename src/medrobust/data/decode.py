"""From the bytes of an image file to pixels on their integer grid.

8 bit stays 8 bit and 16 bit stays 16 bit; EXIF orientation is applied, alpha is dropped, a palette is looked up, a
colour image with R = G = B everywhere becomes grey. Whatever gives the stored numbers another meaning is stated in
``Decoded.changes``.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from medrobust import limits
from medrobust.data.fit import square
from medrobust.formats import FORMATS

GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")

CHANGES = {
    "turned": "were turned upright, as their EXIF orientation says",
    "inverted": "store white as 0 (TIFF WhiteIsZero) and were inverted, so that 0 is black",
    "transparent": "have transparent pixels; the transparency was dropped, the colours stored under it are used",
    "cmyk": "are CMYK and were converted to RGB without a colour profile",
    "colours": "are stored in another colour space than RGB (YCbCr, LAB, HSV) and were converted to RGB",
    "bilevel": "have 1 bit: pixels are 0 or 255",
    "signed": "have a signed type; their values were taken over (TIFF, none is negative) or shifted (JPEG 2000)",
    "frames": "hold several frames; the first was read",
    "reduced": "hold colour of more than 8 bits and were read at 8 bits",
    "scaled": "are large JPEG files and were decoded at a half, a quarter or an eighth of their size, at least twice "
    "the size asked for; grey levels differ by a few tenths from those of the whole image, resized",
}
"""Changes that decoding may make to the stored numbers, and a sentence on each, after "n images"."""

PHOTOMETRIC, BITS, SAMPLE_FORMAT, SAMPLES, PLANAR = 262, 258, 339, 277, 284
IMAGE_WIDTH, IMAGE_LENGTH, ROWS_PER_STRIP, STRIP_OFFSETS = 256, 257, 278, 273
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS = 322, 323, 324
"""TIFF tags."""


SPARE = 2
"""How many times the size asked for a JPEG file that is decoded at a fraction of its size still has."""
SMALL = 2**20
"""Pixels up to which a file may be as short as it likes."""


class Decoded(NamedTuple):
    """pixels: whole numbers (h, w) or (h, w, 3); 0 is shown black, ``levels`` white; of DICOM some may lie outside.

    native: (width, height), upright. changes: names of CHANGES. bits: 8 to 16, those that a pixel is stored with.
    """

    pixels: np.ndarray
    native: tuple[int, int]
    changes: frozenset[str]
    levels: int
    bits: int
    step: float = 0.0
    """Hounsfield units of one stored level; 0 where they are not known."""
    base: int | None = None
    sign: int = 1
    """Of DICOM: the stored value of a pixel is base + sign * pixel; None where a table or palette lies between."""
    storable: tuple[int, int] | None = None
    """The least and the largest pixel that the file can hold; None: 0 and ``levels``."""


def decode(data: bytes, size: int | None = None, grey: bool = False, fit: str = "stretch") -> Decoded:
    """Decode, turn upright, reduce to grey if asked, make square by ``fit``, resize to (size, size) unless None.

    ValueError or any of PIL's errors if the bytes are no complete image, or one beyond ``limits.IMAGE_PIXELS``, which
    is checked on the header, before any pixel is decoded.
    """
    with opened(data) as image:
        changes = {"frames"} if getattr(image, "is_animated", False) else set()
        white, top, signed = _tiff(image)
        if white:
            changes.add("inverted")
        deep = _deep_colour(image, data)
        low = _low_bytes(data) if deep else None
        if image.format == "JPEG2000" and _jpeg_2000(data)[1]:
            changes.add("signed")
        if _orientation(image) > 1:
            changes.add("turned")
        _check_strips(image)
        native, box = image.size, _scaled(image, size, fit)
        if box is not None:
            changes.add("scaled")
        image.load()  # the whole file: a truncated one raises here
        _check_rows(image, data)
        if size is not None and not (grey or deep or signed) and _resizable(image, fit):
            small = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))
            if not _is_grey(small):  # then the image is not grey either
                return Decoded(small, native, frozenset(changes), 255, 8)
        pixels = _pixels(_upright(image), changes, signed)
        if white and image.mode in GREY_16:  # Pillow inverts up to 8 bits only
            pixels = top - pixels
    if low is not None and pixels.ndim == 3:
        pixels = pixels.astype(np.uint16) << 8 | low
    if deep and pixels.dtype == np.uint8:
        changes.add("reduced")
    if box is None:
        native = (pixels.shape[1], pixels.shape[0])
    if pixels.ndim == 3:
        pixels = reduced_to_grey(pixels, grey)
    whole, pixels = pixels, square(pixels, fit)
    if size is not None:
        pixels = resize(pixels, size, box if pixels is whole else None)
    bits = 8 * pixels.itemsize
    return Decoded(pixels, native, frozenset(changes), (1 << bits) - 1, bits)


def upright_size(file: Path) -> tuple[int, int]:
    """(width, height) of the image as ``decode`` turns it; from its header. Raises as ``decode`` does."""
    with opened(file) as image:
        width, height = image.size
        lying = _orientation(image) >= 5 and image.format != "TIFF"  # Pillow states and turns a TIFF upright itself
        return (height, width) if lying else (width, height)


def _length(data: bytes | Path) -> int:
    return len(data) if isinstance(data, bytes) else data.stat().st_size


@contextlib.contextmanager
def opened(data: bytes | Path) -> Iterator[Image.Image]:
    """The image of those bytes, in one of FORMATS; its pixel count is checked, no pixel is decoded yet."""
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    with strict_pillow(), Image.open(source, formats=tuple(FORMATS)) as image:
        pixels = image.width * image.height
        limits.check(limits.IMAGE_PIXELS, pixels, "it")
        if pixels > SMALL:
            limits.check(limits.PIXELS_PER_BYTE, pixels // max(1, _length(data)), "it")
        yield image


class _Guard:
    """Globals of Pillow, and how many calls have them set aside: its own pixel limit, and whether it fills up images
    that end too early (WeasyPrint turns that on when it is imported)."""

    lock = threading.Lock()
    users = 0
    own: int | None = None
    fills_up = False


@contextlib.contextmanager
def strict_pillow() -> Iterator[None]:
    """Pillow without its limit on pixels, at which it warns and refuses, and without filling up images that end early.

    Whatever another library has set of the two (WeasyPrint fills up) holds again after.
    """
    with _Guard.lock:
        if _Guard.users == 0:
            _Guard.own, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            _Guard.fills_up, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
        _Guard.users += 1
    try:
        yield
    finally:
        with _Guard.lock:
            _Guard.users -= 1
            if _Guard.users == 0:
                Image.MAX_IMAGE_PIXELS = _Guard.own
                ImageFile.LOAD_TRUNCATED_IMAGES = _Guard.fills_up


def _resizable(image: Image.Image, fit: str) -> bool:
    """Whether Pillow may resize the image as it is: 8-bit colour, upright, opaque, whole by ``fit``."""
    whole = fit in ("stretch", "none") or image.width == image.height
    return image.mode == "RGB" and whole and _orientation(image) == 1 and not image.has_transparency_data


def _scaled(image: Image.Image, size: int | None, fit: str) -> tuple[float, float, float, float] | None:
    """Have a JPEG decoded at a fraction of its size, at least SPARE times ``size`` a side; the image in those pixels.

    None where it is decoded whole: other formats, and images that are turned or cut and whose sides are no multiple.
    """
    if size is None or image.format != "JPEG" or image.mode not in ("L", "RGB") or _orientation(image) > 1:
        return None
    width, height = image.size
    fraction = next((f for f in (8, 4, 2) if min(width, height) >= f * SPARE * size), None)
    if fraction is None or (fit not in ("stretch", "none") and (width % fraction or height % fraction)):
        return None
    drafted = image.draft(None, (width // fraction, height // fraction))
    assert drafted is not None
    return drafted[1]


def resize(pixels: np.ndarray, size: int, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """(size, size[, 3]) by bilinear interpolation with antialiasing, rounded to the grid of the input's dtype.

    box: left, upper, right, lower of what is resized, in pixels, of uint8 alone; all by default. An image that is not
    square is stretched; see ``medrobust.data.fit`` for the other ways.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR, box))
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    out = np.empty((size, size, planes.shape[2]), pixels.dtype)
    for channel in range(planes.shape[2]):  # PIL resizes one float plane at a time; float32 holds 24 bits exactly
        plane = Image.fromarray(planes[..., channel].astype(np.float32))
        resized = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        out[..., channel] = np.clip(np.rint(resized), pixels.min(), pixels.max())
    return out[..., 0] if pixels.ndim == 2 else out


def reduced_to_grey(pixels: np.ndarray, grey: bool) -> np.ndarray:
    """(h, w) of (h, w, 3) where all colours are grey, or where ``grey`` asks for it; else as it is."""
    if _is_grey(pixels):
        return np.ascontiguousarray(pixels[..., 0])
    return luminance(pixels) if grey else pixels


def luminance(pixels: np.ndarray) -> np.ndarray:
    """(h, w) from (h, w, 3): ITU-R 601 luma, rounded to the grid."""
    out = np.empty(pixels.shape[:2], pixels.dtype)
    rows = max(1, 2**20 // pixels.shape[1])  # in strips: in float64 a large image takes eight times its room
    for top in range(0, len(pixels), rows):
        strip = pixels[top : top + rows] @ np.array([0.299, 0.587, 0.114])
        out[top : top + rows] = np.rint(strip).astype(pixels.dtype)
    return out


def _upright(image: Image.Image) -> Image.Image:
    """The image turned as its orientation says; itself, not a copy, where it is upright."""
    return ImageOps.exif_transpose(image) if _orientation(image) > 1 else image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation: 1 upright, up to 8; 1 too for any other value."""
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(2, 9) else 1


def _pixels(image: Image.Image, changes: set[str], signed: bool = False) -> np.ndarray:
    """uint8 or uint16, (h, w) or (h, w, 3). signed: the file states a signed integer type."""
    if image.mode in GREY_16:
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            kind = "signed" if signed else "32-bit"
            raise ValueError(f"{kind} values from {values.min()} to {values.max()}; save it with 8 or 16 bits")
        if signed:
            changes.add("signed")
        return values.astype(np.uint16)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if signed:
        values = np.asarray(image)
        if values.max() > 127:
            raise ValueError("signed 8-bit values, some negative; save it with 8 or 16 bits")
        changes.add("signed")
    if image.mode == "1":
        changes.add("bilevel")
    if image.mode == "CMYK":
        changes.add("cmyk")
    elif image.mode in ("YCbCr", "LAB", "HSV"):
        changes.add("colours")
    if _transparent(image):
        changes.add("transparent")
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image if image.mode == "L" else image.convert("L"))
    if image.mode in ("P", "PA", "RGBa"):
        image = image.convert("RGBA")  # a palette may carry alpha; drop it in the next step
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _transparent(image: Image.Image) -> bool:
    """Whether any pixel lets through what lies under it."""
    if not image.has_transparency_data:
        return False
    straight = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, image.mode))
    with_alpha = straight if straight.mode in ("LA", "RGBA") else straight.convert("RGBA")
    lowest = with_alpha.getchannel("A").getextrema()[0]
    assert isinstance(lowest, (int, float))
    return lowest < 255


def _is_grey(pixels: np.ndarray) -> bool:
    rows = max(1, 2**20 // pixels.shape[1])  # in strips: most colour images show it in the first
    strips = (pixels[top : top + rows] for top in range(0, len(pixels), rows))
    return all((s[..., 0] == s[..., 1]).all() and (s[..., 1] == s[..., 2]).all() for s in strips)


def _tiff(image: Image.Image) -> tuple[bool, int, bool]:
    """Of a TIFF: whether 0 is white, the largest value of its type, and whether that is a signed integer."""
    if image.format != "TIFF":
        return False, 0, False
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = tags.get(BITS, (1,))
    signed = 2 in tuple(tags.get(SAMPLE_FORMAT, (1,)))
    grey = image.mode in ("1", "L", *GREY_16)
    return grey and tags.get(PHOTOMETRIC, 0) == 0, 2 ** min(int(bits[0]), 16) - 1, signed


def _check_strips(image: Image.Image) -> None:
    """ValueError where the strips or tiles of a TIFF cover less than the image; Pillow leaves the rest black."""
    if image.format != "TIFF":
        return
    tags = image.tag_v2  # type: ignore[attr-defined]
    width, height = tags[IMAGE_WIDTH], tags[IMAGE_LENGTH]
    if TILE_WIDTH in tags:
        needed = -(-width // max(1, tags[TILE_WIDTH])) * -(-height // max(1, tags.get(TILE_LENGTH, 1)))
        held = len(tags.get(TILE_OFFSETS, ()))
    else:
        needed = -(-height // max(1, tags.get(ROWS_PER_STRIP, height)))
        held = len(tags.get(STRIP_OFFSETS, ()))
    if tags.get(PLANAR, 1) == 2:
        needed *= tags.get(SAMPLES, 1)
    if held < needed:
        raise ValueError(f"its pixels are incomplete: {held} of {needed} strips or tiles")


def _check_rows(image: Image.Image, data: bytes) -> None:
    """ValueError where the data of a PNG end before its last row; Pillow leaves the rest 0.

    Only a PNG whose last row is 0 throughout is looked at: that takes unpacking it again.
    """
    if image.format != "PNG" or data[28] or image.crop((0, image.height - 1, image.width, image.height)).getbbox():
        return
    bits = data[24] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[data[25]]  # IHDR: bit depth, colour type; 28: interlaced
    needed = image.height * (1 + -(-image.width * bits // 8))
    unpack, held, place = zlib.decompressobj(), 0, 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"IDAT":
            try:
                held += len(unpack.decompress(data[place + 8 : place + 8 + length]))
            except zlib.error as error:  # Pillow stops reading where it has its rows, which may be before this
                raise ValueError(f"its pixels cannot be unpacked: {error}") from error
        place += 12 + length
    if held + len(unpack.flush()) < needed:
        raise ValueError(f"its pixels are incomplete: {held:,} of {needed:,} bytes")


def _jpeg_2000(data: bytes) -> tuple[int, bool]:
    """Bits of the first component and whether it is signed, from the SIZ marker (ITU-T T.800, A.5.1)."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 42 >= len(data):
        return 8, False
    precision = data[start + 42]
    return (precision & 0x7F) + 1, bool(precision & 0x80)


def _deep_colour(image: Image.Image, data: bytes) -> bool:
    """Whether the file holds colour, or grey with alpha, of more than 8 bits, of which PIL keeps 8."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] in (2, 4, 6)  # IHDR: bit depth, colour type
    if image.format == "TIFF":
        depth = image.tag_v2.get(BITS, ())  # type: ignore[attr-defined]
        return len(depth) >= 2 and max(depth) > 8
    if image.format == "JPEG2000":
        return image.mode not in (*GREY_16, "I") and _jpeg_2000(data)[0] > 8
    return image.format == "PPM" and image.mode == "RGB" and _maxval(image) > 255


def _maxval(image: Image.Image) -> int:
    """The largest value that a PPM states; Pillow hands it to its decoder."""
    args = image.tile[0].args if image.tile else ()  # type: ignore[attr-defined]
    return args[1] if isinstance(args, tuple) and len(args) == 2 and isinstance(args[1], int) else 255


def _low_bytes(data: bytes) -> np.ndarray | None:
    """uint8 (h, w, 3): the low bytes of 16-bit colour, of which PIL keeps the high ones. None where PIL cannot.

    PIL unpacks "RGB;16B" (big-endian) and "RGB;16L" (little-endian) by taking the high byte. Told the wrong
    order, it takes the low one.
    """
    swap = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    with opened(data) as image:
        tiles = []
        for tile in image.tile:  # type: ignore[attr-defined]
            args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            if not re.fullmatch("RGB[AX]?;16[BLN]", str(args[0])):
                return None
            args = (args[0][:-1] + swap[args[0][-1]], *args[1:])
            tiles.append(tile._replace(args=args if isinstance(tile.args, tuple) else args[0]))
        image.tile = tiles  # type: ignore[attr-defined]
        return _pixels(_upright(image), set())
