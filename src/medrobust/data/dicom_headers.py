"""What the headers of DICOM files add to a listing: frames, patients, labels, sizes, and warnings.

In tables and class folders, too, a file that begins as one of DICOM is read as such. Patients are those of PatientID
where nothing else names them, as hashes with a salt that is made of the files themselves: who has a report and no
files cannot try out numbers.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import medrobust.data.dicom_file as dicom_file
import medrobust.data.nifti_file as nifti_file
from medrobust import limits
from medrobust.data.patients import NO_COLUMN, named
from medrobust.data.source import Listing, Request
from medrobust.data.words import tidy

if TYPE_CHECKING:
    import pydicom

FRAMES = ("one", "middle", "all")
"""Which frames of a file with several are read: the first (of a NIfTI volume the slice in the middle), that in the
middle, or each as an image; a number names one from 1."""
LEVELS = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
"""What ``--patient`` may group the images of DICOM files by."""
TAGS = (
    *LEVELS.values(),
    *("SOPInstanceUID", "SOPClassUID", "NumberOfFrames", "Rows", "Columns"),
    *("BurnedInAnnotation", "ConversionType"),
)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""SOP classes of pictures that were made from others: their pixels often show names."""


class FileRow(NamedTuple):
    """A frame of an image file, and the (width, height) that its header states where it is one of DICOM."""

    file: Path
    frame: int = 0
    size: tuple[int, int] | None = None
    dicom: bool = False
    name: str = ""
    """What the id of the image has behind that of the file: #2 for the second of its frames."""


class Headers(NamedTuple):
    """files: of DICOM, to their elements before the pixels; None where those cannot be read."""

    files: dict[Path, pydicom.Dataset | None]

    def text(self, file: Path, tag: str) -> str:
        """An element as text; empty where it is not there."""
        elements = self.files.get(file)
        value = None if elements is None else elements.get(tag)
        return "" if value is None else str(getattr(value, "value", value)).strip()


def expanded(
    files: Sequence[Path], listing: Listing, request: Request, label: str | None = None
) -> tuple[list[FileRow], Listing]:
    """A row for each frame that is read, and the listing of those rows.

    label: the element whose value is the label. Without any DICOM file, all is as it was.
    """
    volumes = {file: nifti_file.volume_shape(file) for file in dict.fromkeys(files) if nifti_file.is_nifti(file)}
    dicom = [file for file in dict.fromkeys(files) if file not in volumes and dicom_file.begins_as_dicom(file)]
    if not dicom and not volumes:
        return [FileRow(file) for file in files], listing
    if dicom:
        dicom_file.need_pydicom()
    tags = TAGS if label is None else (*TAGS, label)
    headers = Headers({file: dicom_file.header(file, tags) for file in dicom})
    listing = _grouped(files, listing, request, headers)
    if label is not None:
        listing = replace(listing, labels=[headers.text(file, label) for file in files])
    rows, sources, several = [], [], 0
    for place, file in enumerate(files):
        elements, volume = headers.files.get(file), volumes.get(file)
        count = volume.slices if volume else 1 if elements is None else dicom_file.frames(elements)
        several += count > 1 and not volume
        if request.frames == "all":
            limits.check(limits.FRAMES, count, f"an image of {len(files)} files")
        chosen = _chosen(request.frames, count, "middle" if file in volumes else "first")
        size = (volume.width, volume.height) if volume else _size(elements)
        each = request.frames == "all" and count > 1
        rows += [FileRow(file, f, size, file in headers.files, f"#{f + 1}" if each else "") for f in chosen]
        sources += [place] * len(chosen)
    notes = [f"Of {several} files with several frames {_in_words(request, 'first')} was read (--frames)."]
    notes = notes if several else []
    if volumes:
        notes.append(f"Of {len(volumes)} NIfTI volumes {_in_words(request, 'middle')} was read as a slice (--frames).")
    if volumes and request.frames == "all" and listing.patients is None and request.patient != NO_COLUMN:
        listing = replace(listing, patients=list(listing.ids))
        notes.append("Slices of one NIfTI volume are taken for those of one patient.")
    notes += _on_burned_in(headers)
    ids = [listing.ids[place] + row.name for row, place in zip(rows, sources, strict=True)]
    return rows, _taken(listing, sources, ids, (*listing.notes, *notes))


def _chosen(frames: str, count: int, one: str) -> Sequence[int]:
    """The frames that are read of so many, from 0. one: which is meant by "one", the first or the middle."""
    if frames == "all":
        return range(count)
    if frames.isdecimal():
        return [int(frames) - 1]
    return [0 if (frames, one) == ("one", "first") else count // 2]


def _in_words(request: Request, one: str) -> str:
    if request.frames.isdecimal():
        return f"number {request.frames}"
    if request.frames == "all":
        return "each"
    return "the first" if (request.frames, one) == ("one", "first") else "the one in the middle"


def _taken(listing: Listing, places: list[int], ids: list[str], notes: tuple[str, ...]) -> Listing:
    """The listing whose entry i is that of ``places[i]``."""

    def pick(column: Any) -> Any:
        if column is None or isinstance(column, np.ndarray):
            return None if column is None else column[places]
        return [column[place] for place in places]

    return replace(
        listing,
        ids=ids,
        labels=pick(listing.labels),
        splits=pick(listing.splits),
        patients=pick(listing.patients),
        extra={name: pick(column) for name, column in listing.extra.items()},
        notes=notes,
    )


def _grouped(files: Sequence[Path], listing: Listing, request: Request, headers: Headers) -> Listing:
    """The listing with patients from the headers, where it has none and ``--patient`` allows it."""
    if listing.patients is not None or request.patient == NO_COLUMN:
        return listing
    level = request.patient or "patient"
    if level not in LEVELS:
        return listing
    salt = hashlib.sha256("\x1f".join(sorted(headers.text(f, "SOPInstanceUID") for f in headers.files)).encode())
    cells = [headers.text(file, LEVELS[level]) for file in files]
    if request.patient is None and len(set(named(cells)) - {""}) < 2:
        # de-identified files often share one PatientID, or have none
        level = "study"
        cells = [headers.text(file, LEVELS[level]) for file in files]
        if len(set(cells) - {""}) < 2:
            return listing
    hashed = [_hash(salt.digest(), cell) if word else "" for cell, word in zip(cells, named(cells), strict=True)]
    note = f"Images are grouped by the {level} that their DICOM files state ({LEVELS[level]}, as a salted hash)."
    return replace(listing, patients=hashed, notes=(*listing.notes, note))


def _hash(salt: bytes, text: str) -> str:
    return hashlib.blake2b(tidy(text).encode(), key=salt, digest_size=8).hexdigest()


def _size(elements: pydicom.Dataset | None) -> tuple[int, int] | None:
    """(width, height) that a header states."""
    if elements is None:
        return None
    width, height = elements.get("Columns"), elements.get("Rows")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _on_burned_in(headers: Headers) -> list[str]:
    """A warning on files whose pixels may show who the patient is."""
    counts = Counter(
        "yes" if stated == "YES" else "unknown"
        for file in headers.files
        if (stated := headers.text(file, "BurnedInAnnotation").upper()) == "YES"
        or (not stated and headers.text(file, "SOPClassUID").startswith(SECONDARY_CAPTURE))
    )
    if not counts:
        return []
    return [
        f"Pixels may show who the patient is: BurnedInAnnotation is YES in {counts['yes']} files, and is not stated in "
        f"{counts['unknown']} secondary captures. Look at the pictures of a report before you pass it on."
    ]
