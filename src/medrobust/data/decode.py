"""From the bytes of a PNG, JPEG or TIFF to pixels on their integer grid.

8 bit stays 8 bit and 16 bit stays 16 bit; EXIF orientation is applied, alpha is dropped, a palette is
looked up, a colour image with R = G = B everywhere becomes grey.
"""

from __future__ import annotations

import io
import re
import sys
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")


class Decoded(NamedTuple):
    """pixels: uint8 or uint16, (h, w) or (h, w, 3). native: (width, height) in the file. frames: in the file.

    lost: the file has 16-bit colour that could only be read at 8 bits.
    """

    pixels: np.ndarray
    native: tuple[int, int]
    frames: int
    lost: bool


def decode(data: bytes, size: int | None = None, grey: bool = False) -> Decoded:
    """Decode, turn upright, reduce to grey if asked, and resize to (size, size) unless None. ValueError or
    any of PIL's errors if the bytes are no complete image.
    """
    with Image.open(io.BytesIO(data)) as image:
        frames, deep = int(getattr(image, "n_frames", 1)), _colour_16(image, data)
        low = _low_bytes(data) if deep else None
        image.load()  # the whole file: a truncated one raises here
        native = image.size
        pixels = _pixels(ImageOps.exif_transpose(image))
    if low is not None and pixels.ndim == 3:
        pixels = pixels.astype(np.uint16) << 8 | low
    if pixels.ndim == 3:
        if _is_grey(pixels):
            pixels = np.ascontiguousarray(pixels[..., 0])
        elif grey:
            pixels = luminance(pixels)
    if size is not None:
        pixels = resize(pixels, size)
    return Decoded(pixels, native, frames, deep and pixels.dtype == np.uint8)


def resize(pixels: np.ndarray, size: int) -> np.ndarray:
    """(size, size[, 3]) by bilinear interpolation with antialiasing, rounded to the grid of the input's dtype.

    An image that is not square is stretched, as the medical studies do it: cropping could cut a finding off.
    """
    if pixels.shape[:2] == (size, size):
        return pixels
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BILINEAR))
    planes = pixels[..., None] if pixels.ndim == 2 else pixels
    out = np.empty((size, size, planes.shape[2]), np.uint16)
    for channel in range(planes.shape[2]):  # PIL resizes one float plane at a time; float32 holds 16 bits exactly
        plane = Image.fromarray(planes[..., channel].astype(np.float32))
        resized = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        out[..., channel] = np.clip(np.rint(resized), 0, 65535)
    return out[..., 0] if pixels.ndim == 2 else out


def luminance(pixels: np.ndarray) -> np.ndarray:
    """(h, w) from (h, w, 3): ITU-R 601 luma, rounded to the grid."""
    return np.rint(pixels @ np.array([0.299, 0.587, 0.114])).astype(pixels.dtype)


def _pixels(image: Image.Image) -> np.ndarray:
    """uint8 or uint16, (h, w) or (h, w, 3)."""
    if image.mode in GREY_16:
        return np.asarray(image).astype(np.uint16)
    if image.mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"32-bit values from {values.min()} to {values.max()}; save it with 8 or 16 bits")
        return values.astype(np.uint16)
    if image.mode == "F":
        raise ValueError("floating-point pixels; save it with 8 or 16 bits")
    if image.mode in ("1", "L", "LA", "La"):
        return np.asarray(image.convert("L"))
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # a palette may carry alpha; drop it in the next step
    return np.asarray(image.convert("RGB"))


def _is_grey(pixels: np.ndarray) -> bool:
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    return bool((red == green).all() and (green == blue).all())


def _colour_16(image: Image.Image, data: bytes) -> bool:
    """Whether the file holds colour at 16 bits, of which PIL keeps 8."""
    if image.format == "PNG":
        return data[24] == 16 and data[25] in (2, 4, 6)  # IHDR: bit depth, colour type
    if image.format == "TIFF":
        depth = image.tag_v2.get(258, ())  # type: ignore[attr-defined]  # BitsPerSample
        return len(depth) >= 3 and max(depth) == 16
    return False


def _low_bytes(data: bytes) -> np.ndarray | None:
    """uint8 (h, w, 3): the low bytes of 16-bit colour, of which PIL keeps the high ones. None where PIL can not.

    PIL unpacks "RGB;16B" (big-endian) and "RGB;16L" (little-endian) by taking the high byte. Told the wrong
    order, it takes the low one.
    """
    swap = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
    with Image.open(io.BytesIO(data)) as image:
        tiles = []
        for tile in image.tile:
            args = tile.args if isinstance(tile.args, tuple) else (tile.args,)
            if not re.fullmatch("RGB[AX]?;16[BLN]", str(args[0])):
                return None
            args = (args[0][:-1] + swap[args[0][-1]], *args[1:])
            tiles.append(tile._replace(args=args if isinstance(tile.args, tuple) else args[0]))
        image.tile = tiles
        return _pixels(ImageOps.exif_transpose(image))
