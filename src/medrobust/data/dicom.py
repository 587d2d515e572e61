"""dicom:DIR and dicom:FILE: DICOM files, whatever their names end in; classes are folders or an element's values."""

from __future__ import annotations

from pathlib import Path

import medrobust.data.dicom_file as dicom_file
import medrobust.data.folder as folder
from medrobust.data.dataset import Dataset
from medrobust.data.files import open_files
from medrobust.data.source import Listing, Request
from medrobust.data.words import quoted
from medrobust.errors import InputError

CLASS_FOLDERS = "label"
"""The default of ``--label``: classes are folders."""


def open_dicom(where: str, request: Request) -> Dataset:
    """The Dataset of ``dicom:where``: a file, or a folder of DICOM files, whatever their names end in.

    Classes are the folders in it; with ``--label KEYWORD`` the values of that element.
    """
    dicom_file.need_pydicom()
    root = Path(where).expanduser()
    if request.label == CLASS_FOLDERS and root.is_dir():
        return folder.open_folder(where, request, dicom_file.begins_as_dicom)
    if not root.exists():
        raise InputError(f"there is no {where}; dicom: needs a DICOM file or a folder of them")
    if request.label == CLASS_FOLDERS:
        raise InputError(
            f"{where} is one file: name the element that holds the label, for example --label BodyPartExamined, or put "
            "files into a folder for each class"
        )
    keyword = _keyword(request.label)
    passed = folder.Passed(dicom_file.begins_as_dicom)
    files = folder.images_below(root, passed) if root.is_dir() else [root]
    if not files:
        raise InputError(f"{where} holds no DICOM files")
    base = root if root.is_dir() else root.parent
    ids = [folder.text(file.relative_to(base).as_posix()) for file in files]
    listing = Listing(ids=ids, labels=[""] * len(files), notes=tuple(passed.notes()))
    return open_files(root.resolve().name, files, listing, request, keyword)


def _keyword(label: str) -> str:
    """A keyword of DICOM's dictionary, or (gggg,eeee), as its keyword; InputError for anything else."""
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    number = label.strip("()").replace(",", "").replace(" ", "")
    if tag_for_keyword(label) is not None:
        return label
    if len(number) == 8 and all(c in "0123456789abcdefABCDEF" for c in number) and keyword_for_tag(int(number, 16)):
        return keyword_for_tag(int(number, 16))
    raise InputError(
        f"{quoted(label)} is no element of DICOM; give --label a keyword such as BodyPartExamined, or a tag (0018,0015)"
    )
