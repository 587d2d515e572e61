"""Images and their labels, from wherever they are: ``load`` gives the one ``Dataset`` face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medrobust import limits
from medrobust.data.arrays import from_arrays
from medrobust.data.dataset import Dataset
from medrobust.data.dicom import open_dicom
from medrobust.data.dicom_pixels import window_of
from medrobust.data.fit import FITS
from medrobust.data.folder import open_folder
from medrobust.data.frames import FRAMES
from medrobust.data.medmnist import open_medmnist
from medrobust.data.nifti import open_nifti
from medrobust.data.phantom import open_phantom
from medrobust.data.source import LeftOut, Progress, Request
from medrobust.data.table import open_table
from medrobust.errors import InputError

__all__ = ["FITS", "SOURCES", "Dataset", "LeftOut", "from_arrays", "load"]

SOURCES = {
    "phantom": open_phantom,
    "csv": open_table,
    "folder": open_folder,
    "dicom": open_dicom,
    "nifti": open_nifti,
    "medmnist": open_medmnist,
}


def load(
    spec: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    seed: int = 0,
    label: str = "label",
    patient: str | None = None,
    fit: str | None = None,
    progress: Progress | None = None,
    findings: Sequence[str] | None = None,
    separator: str | None = None,
    window: str = "auto",
    frames: str = "one",
) -> Dataset:
    """The data set that ``spec`` names; InputError, in one line, where it cannot be used.

    spec: ``phantom:chest|fundus|skin|chest-findings[@SIZE][:n=N]``, ``csv:FILE``, ``folder:DIR``,
        ``dicom:DIR|FILE``, ``nifti:DIR``, ``medmnist:FILE.npz`` or ``medmnist:NAME[@28|64|128|224]``.
    size: side in pixels to which images are resized; None keeps the native size, which must then be one.
    channels: 1 turns colour into grey. None or 3 keep what there is: 1 channel where every image is grey, else
        3. Grey is never repeated to please a network: the classifier does that, and so an attack on a grey
        image stays grey.
    seed: draws the split where none is given, and the phantoms.
    label: the column of a table that holds the label; of ``dicom:``, the keyword of an element.
    patient: the column of a table that names the patients, or "none"; None finds it by its usual names. Of DICOM
        files: "patient", "study" or "series".
    fit: how images that are not square become square: "stretch" (None too), "crop" or "pad"; "none": every image keeps
        its own size and shape.
    progress: called with (images done, images in all) while files are verified.
    findings: columns of a table, one a finding, with 1 (present), 0 (absent), and -1, NaN or nothing (unknown).
    separator: between the findings of a label, as in ``effusion|nodule``; "none" takes every label for one class, None
        recognises | and ; where the findings also stand alone.
    window: of DICOM files: "auto" as each file states it, "CENTRE,WIDTH", or "none" for all values of their bits; of
        NIfTI volumes "auto" is from the 0.5th to the 99.5th percentile, "none" from the least to the largest value.
    frames: of DICOM files with several: "one" (the first), "middle", "all", or the number of one from 1; of NIfTI
        volumes likewise slices, "one" being that in the middle.
    """
    kind, colon, where = spec.partition(":")
    if not colon or kind not in SOURCES or not where:
        raise InputError(f"unknown data {spec!r}; write KIND:WHERE with KIND one of {_kinds()}{_guess(spec)}")
    if size is not None and size < 8:
        raise InputError(f"size must be at least 8 pixels, got {size}")
    if size is not None:
        limits.check(limits.IMAGE_PIXELS, size * size, f"an image of size {size}")
    if channels not in (None, 1, 3):
        raise InputError(f"channels must be 1 or 3, got {channels}; leave it out to take what the images have")
    if fit not in (None, *FITS):
        raise InputError(f"fit must be one of {', '.join(FITS)}, got {fit!r}")
    if separator is not None and not separator.strip():
        raise InputError("the separator of findings must be a sign such as | or ;, or none")
    if fit == "none" and size is not None:
        raise InputError(f"fit none keeps every image's own size: leave size={size} out, or choose another fit")
    if frames not in FRAMES and not (frames.isdecimal() and int(frames)):
        raise InputError(f"frames must be {', '.join(FRAMES)} or a number from 1, got {frames!r}")
    try:
        window_of(window)
    except ValueError:
        raise InputError(f"window must be auto, none or CENTRE,WIDTH such as 40,400, got {window!r}") from None
    columns = None if findings is None else tuple(findings)
    request = Request(size, channels, seed, label, patient, fit, progress, columns, separator, window, frames)
    made = SOURCES[kind](where, request)
    if not isinstance(made, Dataset):
        raise InputError(
            f"the data source {kind!r} gave {type(made).__name__} instead of a Dataset; its function in SOURCES must "
            "return what assemble makes"
        )
    return made


def _kinds() -> str:
    return ", ".join(SOURCES)


def _guess(spec: str) -> str:
    """A suggestion for a path without a kind."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return f"; did you mean folder:{spec}?"
    kind = {".csv": "csv", ".npz": "medmnist"}.get(path.suffix.lower())
    return f"; did you mean {kind}:{spec}?" if kind and path.is_file() else ""
