"""Image files that hold several images: the frames of DICOM files, the slices of NIfTI volumes, and which are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import medrobust.data.dicom_file as dicom_file
import medrobust.data.dicom_headers as dicom_headers
import medrobust.data.nifti_file as nifti_file
from medrobust import limits
from medrobust.data.patients import NO_COLUMN
from medrobust.data.source import Listing, Request

FRAMES = ("one", "middle", "all")
"""Which frames of a file with several are read: the first (of a NIfTI volume the slice in the middle), that in the
middle, or each as an image; a number names one from 1."""


class FileRow(NamedTuple):
    """A frame of an image file, and the (width, height) that its header states where it is one of DICOM."""

    file: Path
    frame: int = 0
    size: tuple[int, int] | None = None
    dicom: bool = False
    name: str = ""
    """What the id of the image has behind that of the file: #2 for the second of its frames."""


def expanded(
    files: Sequence[Path], listing: Listing, request: Request, label: str | None = None
) -> tuple[list[FileRow], Listing]:
    """A row for each frame that is read, and the listing of those rows.

    label: the element of DICOM files whose value is the label. Without any DICOM file or volume, all is as it was.
    """
    volumes = {file: nifti_file.volume_shape(file) for file in dict.fromkeys(files) if nifti_file.is_nifti(file)}
    dicom = [file for file in dict.fromkeys(files) if file not in volumes and dicom_file.begins_as_dicom(file)]
    if not dicom and not volumes:
        return [FileRow(file) for file in files], listing
    headers, listing = dicom_headers.read(dicom, files, listing, request, label)
    of_volumes = "middle" if request.frames == "one" else request.frames
    rows, sources, several = [], [], 0
    for place, file in enumerate(files):
        elements, volume = headers.files.get(file), volumes.get(file)
        count = volume.slices if volume else 1 if elements is None else dicom_file.frames(elements)
        several += count > 1 and not volume
        if request.frames == "all":
            limits.check(limits.FRAMES, count, f"an image of {len(files)} files")
        size = (volume.width, volume.height) if volume else dicom_headers.size(elements)
        each = request.frames == "all" and count > 1
        for frame in _chosen(of_volumes if file in volumes else request.frames, count):
            rows.append(FileRow(file, frame, size, file in headers.files, f"#{frame + 1}" if each else ""))
            sources.append(place)
    notes = []
    if several:
        notes.append(f"Of {several} files with several frames {_in_words(request.frames)} was read (--frames).")
    if volumes:
        notes.append(f"Of {len(volumes)} NIfTI volumes {_in_words(of_volumes)} was read as a slice (--frames).")
    if volumes and request.frames == "all" and listing.patients is None and request.patient != NO_COLUMN:
        listing = replace(listing, patients=list(listing.ids))
        notes.append("Slices of one NIfTI volume are taken for those of one patient.")
    notes += dicom_headers.on_burned_in(headers)
    ids = [listing.ids[place] + row.name for row, place in zip(rows, sources, strict=True)]
    return rows, _taken(listing, sources, ids, (*listing.notes, *notes))


def _chosen(frames: str, count: int) -> Sequence[int]:
    """The frames that are read of so many, from 0."""
    if frames == "all":
        return range(count)
    return [int(frames) - 1 if frames.isdecimal() else {"one": 0, "middle": count // 2}[frames]]


def _in_words(frames: str) -> str:
    return {"one": "the first", "middle": "the one in the middle", "all": "each"}.get(frames, f"number {frames}")


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
