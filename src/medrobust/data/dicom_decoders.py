"""Which library decodes the pixels of a DICOM file.

Not in pydicom's order, which has GDCM first: GDCM ends the whole process on some damaged JPEG streams (an exception of
C++ that nothing catches). So the others come first, and GDCM decodes in a process of its own, where they fail.
"""

from __future__ import annotations

import io
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np

from medrobust.data.decode import strict_pillow

if TYPE_CHECKING:
    from pydicom import Dataset

IN_PROCESS = ("pillow", "pyjpegls", "pylibjpeg", "pydicom")
"""Pillow decodes JPEG to the same bits as GDCM; pylibjpeg differs by up to three levels."""
APART = "gdcm"
PATIENCE = 60.0
"""Seconds that the other process may take for one frame."""
PIXEL_ELEMENTS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
)
CHILD = """
import io, sys, numpy
from pydicom.pixels.utils import pixel_array
pixels = pixel_array(io.BytesIO(sys.stdin.buffer.read()), decoding_plugin="gdcm")
stream = io.BytesIO()
numpy.save(stream, pixels, allow_pickle=False)
sys.stdout.buffer.write(stream.getvalue())
"""


def decoded(elements: Dataset, frame: int) -> np.ndarray:
    """The stored values of one frame, (h, w) or (h, w, 3); YBR converted to RGB.

    Raises whatever the last decoder raises where none reads it, and ValueError where there is no decoder.
    """
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import pixel_array

    syntax = elements.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated:
        return pixel_array(elements, index=frame)
    installed = get_decoder(syntax).available_plugins
    last: Exception = ValueError("no decoder is installed")
    for name in (name for name in IN_PROCESS if name in installed):
        try:
            with strict_pillow():
                return pixel_array(elements, index=frame, decoding_plugin=name)
        except Exception as error:  # each decoder raises whatever it likes on damaged bytes
            last = error
    if APART in installed:
        return _apart(elements, frame)
    raise last


def _apart(elements: Dataset, frame: int) -> np.ndarray:
    """As GDCM decodes the frame, in a process that gets nothing of the file but its pixels. ValueError if it cannot."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD], input=_alone(elements, frame), capture_output=True, timeout=PATIENCE, check=False
    )
    if done.returncode:
        raise ValueError("GDCM does not read it")
    return np.asarray(np.load(io.BytesIO(done.stdout), allow_pickle=False))


def _alone(elements: Dataset, frame: int) -> bytes:
    """A DICOM file of one frame, with the elements that its pixels need and no others."""
    from pydicom import Dataset, dcmwrite
    from pydicom.dataset import FileMetaDataset
    from pydicom.encaps import encapsulate, get_frame
    from pydicom.uid import UID, SecondaryCaptureImageStorage

    alone, meta = Dataset(), FileMetaDataset()
    meta.TransferSyntaxUID = elements.file_meta.TransferSyntaxUID
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    for name in PIXEL_ELEMENTS:
        if name in elements:
            setattr(alone, name, elements[name].value)
    count = int(elements.get("NumberOfFrames") or 1)
    alone.PixelData = encapsulate([get_frame(elements.PixelData, frame, number_of_frames=count)])
    alone["PixelData"].VR = "OB"
    alone.file_meta = meta
    stream = io.BytesIO()
    dcmwrite(stream, alone, enforce_file_format=True)
    return stream.getvalue()
