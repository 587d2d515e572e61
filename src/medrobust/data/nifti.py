"""nifti:DIR: slices of NIfTI volumes (.nii, .nii.gz); a class is a folder."""

from __future__ import annotations

from pathlib import Path

import medrobust.data.folder as folder
from medrobust.data.dataset import Dataset
from medrobust.data.nifti_file import is_nifti
from medrobust.data.source import Request
from medrobust.errors import InputError


def open_nifti(where: str, request: Request) -> Dataset:
    """The Dataset of ``nifti:where``, a folder that has a folder for each class."""
    if not Path(where).expanduser().is_dir():
        raise InputError(
            f"{where} is no folder; nifti: needs one that has a folder for each class, csv: a table that names volumes"
        )
    return folder.open_folder(where, request, is_nifti)
