"""From the stored values of a DICOM frame to whole numbers of which 0 is shown black and ``levels`` white.

The order is DICOM's: modality LUT or rescale, VOI LUT or window, inversion of MONOCHROME1. Rescale and window are
affine, so stored values keep their steps: one stored value more is one number more. Values outside the window are
below 0 or above ``levels``, at most ``levels`` away: an attack has to bring them to the window's edge before they are
seen. Padding (PixelPaddingValue) is ``-levels``. A lookup table or sigmoid that is not affine is applied, and its
output takes the place of the stored values.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medrobust.data.decode import Decoded, reduced_to_grey, resize
from medrobust.data.dicom_file import DicomError, parsed_frame, quiet, stored
from medrobust.data.fit import square
from medrobust.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

AUTO, NONE = "auto", "none"
"""``--window auto``: as the file says. ``none``: all stored values, from black to white."""
MOST_LEVELS = 2**22
"""Stored levels of a window: three windows are still whole numbers of float32."""

CHANGES = {
    "modality": "have a modality lookup table that is not affine; it was applied, and they are attacked in its output",
    "voi": "have a VOI lookup table, which was applied; they are attacked in its output",
    "sigmoid": "have a sigmoid window, which was applied; they are attacked in its output",
    "windowed": "are shown in the window that their file states (the first, where it states several)",
    "asked": "are shown in the window that was asked for",
    "wide": "are shown in a window that reaches beyond what their bits can store: attacks stay within what they can",
    "whole": "state no window: all values that their bits can store are shown, from black to white",
    "monochrome1": "store white as 0 (MONOCHROME1) and were inverted, after the window, so that 0 is black",
    "palette": "are stored as numbers of a palette and were turned into its colours, in which they are attacked",
    "padding": "have pixels outside the picture (PixelPaddingValue): background, black, never attacked",
    "overlay": "have overlays, which were ignored",
    "lossy": "were compressed with loss before they came here, as their files say",
}
"""Sentences on what reading did, after "n of m images"; see ``decode.CHANGES``."""


class DisplayWindow(NamedTuple):
    """Centre and width in the units of the modality (Hounsfield units for CT), as DICOM's LINEAR function has them."""

    centre: float
    width: float


def window_of(text: str) -> DisplayWindow | str:
    """``auto``, ``none``, or the DisplayWindow that ``CENTRE,WIDTH`` states; ValueError for anything else."""
    if text in (AUTO, NONE):
        return text
    centre, width = map(float, text.split(","))
    if not (math.isfinite(centre) and math.isfinite(width) and width > 1):
        raise ValueError("the width of a window must be above 1")
    return DisplayWindow(centre, width)


class StoredScale(NamedTuple):
    """Of shown numbers, 0 black, ``levels`` white. stored value = base + sign * number; base None: none is stored."""

    levels: int
    base: int | None = None
    sign: int = 1

    def inverted(self) -> StoredScale:
        """Of the numbers ``levels`` less those of this one."""
        return StoredScale(self.levels, None if self.base is None else self.base + self.sign * self.levels, -self.sign)


class Grey(NamedTuple):
    """Values of one channel on their way. value = stored * slope + intercept is what a window is stated in.

    low, high: the least and the largest value that can be stored. stored: int32 (h, w)."""

    stored: np.ndarray
    low: int
    high: int
    slope: float = 1.0
    intercept: float = 0.0


def decode_dicom(
    data: bytes, frame: int, window: str, size: int | None = None, grey: bool = False, fit: str = "stretch"
) -> Decoded:
    """One frame of a DICOM file; int32 pixels, see the module. The other arguments are those of ``decode``.

    DicomError where it cannot be read; no value of the file is in its text.
    """
    try:
        return _decoded(data, frame, window, size, grey, fit)
    except (DicomError, InputError):
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, NotImplementedError) as error:
        # an element may hold a value of any type, or none, whatever DICOM says of it
        raise DicomError(f"its elements hold values that they cannot have ({type(error).__name__})") from None


def _decoded(data: bytes, frame: int, window: str, size: int | None, grey: bool, fit: str) -> Decoded:
    elements = parsed_frame(data, frame)
    pixels = stored(elements, frame)
    groups = {tag.group for tag in list(elements.keys())}  # elements themselves would be parsed, each of them
    changes: set[str] = {"overlay"} if any(0x6000 <= group <= 0x60FF for group in groups) else set()
    if str(elements.get("LossyImageCompression", "")) == "01":
        changes.add("lossy")
    kind = str(elements.get("PhotometricInterpretation", ""))
    native = (pixels.shape[1], pixels.shape[0])
    background = None
    if kind in ("MONOCHROME1", "MONOCHROME2") and pixels.ndim == 2:
        background = _padding(elements, pixels)
        pixels, scale = _shown(elements, pixels, window_of(window), changes)
        if kind == "MONOCHROME1":
            changes.add("monochrome1")
            pixels, scale = scale.levels - pixels, scale.inverted()
    else:
        pixels, levels = _colours(elements, pixels, kind, changes)
        scale = StoredScale(levels)
        if pixels.ndim == 3:
            pixels = reduced_to_grey(pixels, grey)
    levels = scale.levels
    bits = int(elements.BitsStored) if not changes & {"palette", "modality", "voi"} else levels.bit_length()
    if background is not None and background.any():
        changes.add("padding")
        pixels[background] = 0
    pixels = square(pixels, fit)
    if size is not None:
        pixels = resize(pixels, size)
    if "padding" in changes:
        assert background is not None
        outside = square(background.astype(np.int32) * 1000, fit)
        pixels[(outside if size is None else resize(outside, size)) == 1000] = -levels
    step = 0.0
    if str(elements.get("Modality", "")) == "CT" and not changes & {"modality", "voi", "sigmoid", "colours", "palette"}:
        step = abs(float(elements.get("RescaleSlope", 0)))
    pixels = pixels.astype(np.int32, copy=False)
    storable = None if scale.base is None else _storable(elements, scale)
    return Decoded(pixels, native, frozenset(changes), levels, max(8, bits), step, scale.base, scale.sign, storable)


def _storable(elements: Dataset, scale: StoredScale) -> tuple[int, int]:
    """The numbers of the least and the largest value that can be stored, in ascending order."""
    assert scale.base is not None
    low, high = sorted(scale.sign * (value - scale.base) for value in _limits(elements))
    return low, high


def _limits(elements: Dataset) -> tuple[int, int]:
    """The least and the largest value that can be stored."""
    bits = int(elements.BitsStored)
    low = -(1 << (bits - 1)) if elements.get("PixelRepresentation", 0) else 0
    return low, low + (1 << bits) - 1


def _padding(elements: Dataset, pixels: np.ndarray) -> np.ndarray | None:
    """bool (h, w): the pixels that are padding; None where the file states no padding value."""
    values = []
    for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        value = elements.get(name)
        if isinstance(value, int):
            # as the other sign where the header's type contradicts the pixels'
            values.append(int(np.array(value).astype(pixels.dtype)))
    return (pixels >= min(values)) & (pixels <= max(values)) if values else None


def _shown(
    elements: Dataset, pixels: np.ndarray, window: DisplayWindow | str, changes: set[str]
) -> tuple[np.ndarray, StoredScale]:
    """int32 (h, w) and their scale, before the inversion of MONOCHROME1."""
    from pydicom.pixels.processing import apply_modality_lut, apply_windowing

    grey = _modality(elements, pixels, changes)
    if window == AUTO and (table := _voi_table(elements, grey)) is not None:
        changes.add("voi")
        grey, window = table, NONE
    if window == AUTO and str(elements.get("VOILUTFunction", "")).upper() == "SIGMOID" and _stated(elements):
        changes.add("sigmoid")
        with quiet():
            values = apply_windowing(apply_modality_lut(pixels, elements), elements)
        low, high = sorted(v * grey.slope + grey.intercept for v in (grey.low, grey.high))
        levels = grey.high - grey.low
        return np.rint((values - low) / (high - low) * levels).astype(np.int32), StoredScale(levels)
    bounds = None
    if window == AUTO:
        bounds = _bounds(elements)
        changes.add("whole" if bounds is None else "windowed")
    elif isinstance(window, DisplayWindow):
        bounds = linear(window)
        changes.add("asked")
    black, white = (grey.low, grey.high) if grey.slope > 0 else (grey.high, grey.low)
    if bounds is not None:
        ends = [(bound - grey.intercept) / grey.slope for bound in bounds]
        if not all(map(math.isfinite, ends)) or abs(ends[1] - ends[0]) > MOST_LEVELS:
            raise DicomError(f"its window spans more than {MOST_LEVELS:,} stored levels; use --window CENTRE,WIDTH")
        sign = 1 if ends[1] > ends[0] else -1
        black = round(ends[0])
        white = black + sign * max(1, round(abs(ends[1] - ends[0])))
    if min(black, white) < grey.low or max(black, white) > grey.high:
        changes.add("wide")
    sign, levels = (1 if white > black else -1), abs(white - black)
    return _scaled(grey, black, sign, levels), StoredScale(
        levels, None if changes & {"modality", "voi"} else black, sign
    )


def _scaled(grey: Grey, black: int, sign: int, levels: int) -> np.ndarray:
    """int32 (h, w): sign * (stored - black), within ``levels`` of what is shown; may change ``grey.stored``."""
    fits = max(abs(grey.low), abs(grey.high), abs(black)) < 2**30
    shown = grey.stored if fits else grey.stored.astype(np.int64)  # in place where it can be: images are large
    shown -= black
    if sign < 0:
        np.negative(shown, out=shown)
    return shown.clip(-levels, 2 * levels, out=shown).astype(np.int32, copy=False)


def _modality(elements: Dataset, pixels: np.ndarray, changes: set[str]) -> Grey:
    """The values that a window works on: the stored ones with their rescale, or the output of a modality table."""
    from pydicom.pixels.processing import apply_modality_lut

    low, high = _limits(elements)
    if elements.get("ModalityLUTSequence"):
        changes.add("modality")
        values = _applied(apply_modality_lut, pixels, elements)
        depth = int(elements.ModalityLUTSequence[0].LUTDescriptor[2])
        return Grey(values.astype(np.int32), 0, (1 << depth) - 1)
    slope, intercept = 1.0, 0.0
    if "RescaleSlope" in elements and "RescaleIntercept" in elements:
        try:
            slope, intercept = float(elements.RescaleSlope), float(elements.RescaleIntercept)
        except (TypeError, ValueError):
            slope = math.nan
        if not (math.isfinite(slope) and math.isfinite(intercept) and slope):
            raise DicomError("its rescale slope and intercept are no numbers that can be used")
    held = np.iinfo(pixels.dtype)
    values = pixels.astype(np.int32)
    if held.min < low or held.max > high:
        values.clip(low, high, out=values)
    return Grey(values, low, high, slope, intercept)


def _voi_table(elements: Dataset, grey: Grey) -> Grey | None:
    """The output of the file's VOI lookup table; None where it has none."""
    from pydicom.pixels.processing import apply_voi

    if not elements.get("VOILUTSequence"):
        return None
    item = elements.VOILUTSequence[0]
    if item.get("LUTDescriptor") is None or item.get("LUTData") is None:
        return None
    values = grey.stored * grey.slope + grey.intercept
    if grey.slope == int(grey.slope) and grey.intercept == int(grey.intercept):
        values = values.astype(np.int64)
    out = _applied(apply_voi, values, elements)
    return Grey(out.astype(np.int32), 0, (1 << int(item.LUTDescriptor[2])) - 1)


def _applied(table: object, values: np.ndarray, elements: Dataset) -> np.ndarray:
    assert callable(table)
    try:
        with quiet():
            return np.asarray(table(values, elements))
    except Exception as error:  # a damaged table raises whatever pydicom happens to meet
        raise DicomError(f"its lookup table cannot be applied ({type(error).__name__})") from None


def _stated(elements: Dataset) -> DisplayWindow | None:
    """The first window of a file; None where it states none."""
    centre, width = (elements.get(name) for name in ("WindowCenter", "WindowWidth"))
    if centre is None or width is None:
        return None
    try:
        first = [float(v if isinstance(v, int | float | str) else v[0]) for v in (centre, width)]
    except (TypeError, ValueError, IndexError):
        raise DicomError("its window is no pair of numbers; use --window CENTRE,WIDTH") from None
    return DisplayWindow(*first)


def _bounds(elements: Dataset) -> tuple[float, float] | None:
    """The values that are black and white by the file's window; None where it states none."""
    window = _stated(elements)
    if window is None:
        return None
    if str(elements.get("VOILUTFunction", "LINEAR")).upper() == "LINEAR_EXACT":
        bounds = window.centre - window.width / 2, window.centre + window.width / 2
    else:
        bounds = linear(window)
    if not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[1]:
        raise DicomError("its window has no width; use --window CENTRE,WIDTH or none")
    return bounds


def linear(window: DisplayWindow) -> tuple[float, float]:
    """DICOM PS3.3 C.11.2.1.2.1: black up to the first, white from the second on."""
    return window.centre - window.width / 2, window.centre + window.width / 2 - 1


def _colours(elements: Dataset, pixels: np.ndarray, kind: str, changes: set[str]) -> tuple[np.ndarray, int]:
    """int32 (h, w, 3) and ``levels`` of colour pixels."""
    from pydicom.pixels.processing import apply_color_lut

    if kind == "PALETTE COLOR" and pixels.ndim == 2:
        changes.add("palette")
        colours = _applied(apply_color_lut, pixels, elements)[..., :3]
        return colours.astype(np.int32), int(np.iinfo(colours.dtype).max)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or not (kind == "RGB" or kind.startswith("YBR")):
        known = kind if kind in ("ARGB", "CMYK", "HSV", "MONOCHROME1", "MONOCHROME2", "XYB") else "its colour space"
        raise DicomError(f"{known} with {pixels.shape[2] if pixels.ndim == 3 else 1} samples a pixel is not read")
    if kind.startswith("YBR"):
        changes.add("colours")
    return pixels.astype(np.int32), (1 << int(elements.BitsStored)) - 1
