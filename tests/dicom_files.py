"""DICOM files for tests: made from arrays, one for each way of storing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

NATIVE = ExplicitVRLittleEndian


def elements(
    pixels: np.ndarray,
    bits: int = 12,
    *,
    photometric: str = "MONOCHROME2",
    window: tuple[float, float] | None = None,
    rescale: tuple[float, float] | None = None,
    patient: str = "P1",
    **more: Any,
) -> Dataset:
    """(h, w), (h, w, 3) or (frames, h, w) as a data set, uncompressed; signed where the array is. more: by keyword."""
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = NATIVE
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.SOPInstanceUID = generate_uid(entropy_srcs=[pixels.tobytes().hex()])
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.StudyInstanceUID = generate_uid(entropy_srcs=[patient, "study"])
    made.SeriesInstanceUID = generate_uid(entropy_srcs=[patient, "series"])
    made.PatientID, made.PatientName = patient, f"Name^{patient}"
    made.BurnedInAnnotation = "NO"
    colour = pixels.ndim == 3 and pixels.shape[-1] == 3
    made.SamplesPerPixel, made.PhotometricInterpretation = (3, "RGB") if colour else (1, photometric)
    if colour:
        made.PlanarConfiguration = 0
    if pixels.ndim == 3 and not colour:
        made.NumberOfFrames = len(pixels)
    made.Rows, made.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    made.BitsStored, made.HighBit = bits, bits - 1
    made.BitsAllocated = 8 * pixels.itemsize
    made.PixelRepresentation = int(np.issubdtype(pixels.dtype, np.signedinteger))
    if window is not None:
        made.WindowCenter, made.WindowWidth = window
    if rescale is not None:
        made.RescaleSlope, made.RescaleIntercept = rescale
    for keyword, value in more.items():
        setattr(made, keyword, value)
    data = pixels.tobytes()
    made.PixelData = data + b"\0" * (len(data) % 2)
    made["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    return made


def save(made: Dataset, file: Path, syntax: str = NATIVE) -> Path:
    """Write in that transfer syntax."""
    file.parent.mkdir(parents=True, exist_ok=True)
    if syntax == ExplicitVRBigEndian:
        made.file_meta.TransferSyntaxUID = syntax
        if made.BitsAllocated == 16:
            made.PixelData = np.frombuffer(made.PixelData, "<u2").astype(">u2").tobytes()
    elif syntax != NATIVE:
        made.compress(syntax, generate_instance_uid=False)
    made.save_as(file, enforce_file_format=True)
    return file


def folders(root: Path, n: int = 12, bits: int = 12, size: int = 16, **more: Any) -> Path:
    """n files of each of two classes, without endings; file i is of patient i // 2, class "ill" brighter."""
    for c, name in enumerate(("ill", "well")):
        for i in range(n):
            draw = np.random.default_rng(100 * c + i)
            top = (1 << bits) - 1
            pixels = draw.integers(0, top // 2, (size, size)) + (top // 2 if c == 0 else 0)
            if more.get("photometric") == "MONOCHROME1":
                pixels = top - pixels
            made = elements(pixels.astype(np.uint16), bits, patient=f"{name}{i // 2}", **more)
            save(made, root / name / f"{i:03d}")
    return root
