"""A changed DICOM frame as a derived object: a secondary capture that says what was done and does not claim more.

Nothing of the original's header is taken over but what its pixels need to be shown as before: depth, sign, rescale,
window, padding, modality. Names, dates and identifiers of the original are not.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from medrobust.data.decode import Decoded
from medrobust.data.dicom_file import parsed_frame, quiet, stored
from medrobust.data.dicom_pixels import AUTO, DisplayWindow, decode_dicom, window_of
from medrobust.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

SHOWN_AS = (
    *("RescaleSlope", "RescaleIntercept", "RescaleType"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit", "BurnedInAnnotation"),
)
"""Elements of the original that its pixels need."""
EMPTY = (
    *("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "AccessionNumber", "StudyID"),
    *("ReferringPhysicianName", "Laterality"),
)
"""Elements that an image has to have and that may be empty."""


class Series(NamedTuple):
    """New identifiers that the images of one export share."""

    study: str
    series: str

    @classmethod
    def new(cls) -> Series:
        from pydicom.uid import generate_uid

        return cls(generate_uid(), generate_uid())


def derived(
    data: bytes, frame: int, window: str, pixels: np.ndarray, series: Series, number: int, patient: str, done: str
) -> bytes:
    """A DICOM file with ``pixels`` in place of those of one frame of ``data``.

    pixels: whole numbers (c, h, w) as ``decode_dicom`` gives them: 0 is shown black. window: in which they are shown.
    number: of the image in its series. patient: a code. done: what was done, in words. Values that the original's bits
    cannot store become the nearest that they can. InputError for colour in place of grey.
    """
    elements, original = parsed_frame(data, frame), decode_dicom(data, frame, window)
    values = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    if values.ndim > original.pixels.ndim:
        raise InputError("a grey DICOM image was attacked in colour, which cannot be stored in it; add --channels 1")
    made = _opening(elements, series, number, patient, done)
    if original.base is not None and values.ndim == 2:
        values = _stored_values(elements, original, frame, values)
        _describe(made, values, int(elements.BitsStored), str(elements.PhotometricInterpretation))
        for name in SHOWN_AS:
            if name in elements:
                made[name] = elements[name]
        _state_window(made, elements, window_of(window))
    else:
        values = values.clip(0, original.levels)
        kind = "MONOCHROME2" if values.ndim == 2 else "RGB"
        bits = original.levels.bit_length()
        _describe(made, values.astype(np.uint8 if bits <= 8 else np.uint16), bits, kind)
        if kind == "MONOCHROME2" and original.levels != (1 << bits) - 1:
            # 0 is black, levels is white
            made.WindowCenter, made.WindowWidth = (original.levels + 1) / 2, original.levels + 1
    stream = io.BytesIO()
    with quiet():
        made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _opening(elements: Dataset, series: Series, number: int, patient: str, done: str) -> Dataset:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID = series
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.DerivationDescription = done[:1024]
    made.ConversionType = "WSD"
    made.Manufacturer = "medrobust"
    made.Modality = str(elements.get("Modality", "")) or "OT"
    made.SeriesNumber, made.InstanceNumber = 1, number
    made.PatientID = patient
    for name in EMPTY:
        setattr(made, name, "")
    return made


def _stored_values(elements: Dataset, original: Decoded, frame: int, values: np.ndarray) -> np.ndarray:
    """The values to store: those of the original, moved as far as the shown pixels were."""
    assert original.base is not None
    signed = bool(elements.get("PixelRepresentation", 0))
    bits, kind = int(elements.BitsStored), "i" if signed else "u"
    low = -(1 << (bits - 1)) if signed else 0
    moved = original.base + original.sign * values.astype(np.int64)
    if values.shape == original.pixels.shape:
        # beyond what a pixel holds, and in the padding, nothing is seen and nothing is changed
        beyond = (original.pixels <= -original.levels) | (original.pixels >= 2 * original.levels)
        moved = np.where(beyond, stored(elements, frame), moved)
    size = 1 if int(elements.BitsAllocated) <= 8 else 2
    return np.asarray(moved.clip(low, low + (1 << bits) - 1).astype(f"<{kind}{size}"))


def _describe(made: Dataset, values: np.ndarray, bits: int, photometric: str) -> None:
    made.Rows, made.Columns = values.shape[:2]
    made.SamplesPerPixel = 1 if values.ndim == 2 else 3
    if values.ndim == 3:
        made.PlanarConfiguration = 0
    made.PhotometricInterpretation = photometric
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * values.itemsize, bits, bits - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    data = values.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OB" if values.itemsize == 1 else "OW"


def _state_window(made: Dataset, elements: Dataset, window: DisplayWindow | str) -> None:
    """The window in which the pixels are shown, so that ``auto`` shows them in it again."""
    if isinstance(window, DisplayWindow):
        made.WindowCenter, made.WindowWidth = window
    elif window == AUTO and "WindowCenter" in elements and "WindowWidth" in elements:
        for name in ("WindowCenter", "WindowWidth"):
            value = elements[name].value
            setattr(made, name, value[0] if elements[name].VM > 1 else value)
        if "VOILUTFunction" in elements:
            made.VOILUTFunction = elements.VOILUTFunction
