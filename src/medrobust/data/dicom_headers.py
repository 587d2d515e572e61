"""What the headers of DICOM files add to a listing: patients, labels, sizes, and warnings.

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
from typing import TYPE_CHECKING, NamedTuple

import medrobust.data.dicom_file as dicom_file
from medrobust.data.patients import NO_COLUMN, named
from medrobust.data.source import Listing, Request
from medrobust.data.words import tidy

if TYPE_CHECKING:
    import pydicom

LEVELS = {"patient": "PatientID", "study": "StudyInstanceUID", "series": "SeriesInstanceUID"}
"""What ``--patient`` may group the images of DICOM files by."""
TAGS = (
    *LEVELS.values(),
    *("SOPInstanceUID", "SOPClassUID", "NumberOfFrames", "Rows", "Columns"),
    *("BurnedInAnnotation", "ConversionType"),
)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
"""SOP classes of pictures that were made from others: their pixels often show names."""


class Headers(NamedTuple):
    """files: of DICOM, to their elements before the pixels; None where those cannot be read."""

    files: dict[Path, pydicom.Dataset | None]

    def text(self, file: Path, tag: str) -> str:
        """An element as text; empty where it is not there."""
        elements = self.files.get(file)
        value = None if elements is None else elements.get(tag)
        return "" if value is None else str(getattr(value, "value", value)).strip()


def read(
    dicom: Sequence[Path], files: Sequence[Path], listing: Listing, request: Request, label: str | None
) -> tuple[Headers, Listing]:
    """The headers of the DICOM files among ``files``, and the listing with what they say of patients and labels.

    label: the element whose value is the label.
    """
    if dicom:
        dicom_file.need_pydicom()
    tags = TAGS if label is None else (*TAGS, label)
    headers = Headers({file: dicom_file.header(file, tags) for file in dicom})
    listing = _grouped(files, listing, request, headers)
    if label is not None:
        listing = replace(listing, labels=[headers.text(file, label) for file in files])
    return headers, listing


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


def size(elements: pydicom.Dataset | None) -> tuple[int, int] | None:
    """(width, height) that a header states."""
    if elements is None:
        return None
    width, height = elements.get("Columns"), elements.get("Rows")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def on_burned_in(headers: Headers) -> list[str]:
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
