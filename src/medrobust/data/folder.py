"""folder:DIR: a folder a class, DIR/normal/x.png, or one level down, DIR/train|val|test/normal/x.png."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from medrobust.data.dataset import Dataset
from medrobust.data.files import open_files
from medrobust.data.source import Listing, Request
from medrobust.data.splits import SYNONYMS
from medrobust.data.words import quoted, tidy
from medrobust.errors import InputError
from medrobust.formats import SUFFIXES, TITLES

Place = tuple[int, int]
"""(device, inode): what two names of one file or folder share."""


class FolderImage(NamedTuple):
    """An image file, the name of its class folder, and that of its split folder."""

    file: Path
    label: str
    split: str


def has_ending(file: Path) -> bool:
    """Whether a file's name is that of an image."""
    return file.suffix.lower() in SUFFIXES


class Passed:
    """Files that were passed over, for the notes. accepts: whether a file is an image to be read."""

    def __init__(self, accepts: Callable[[Path], bool]) -> None:
        self.accepts = accepts
        self.endings: Counter[str] = Counter()
        self.broken = self.loops = self.loose = 0
        self.empty: list[str] = []

    def notes(self) -> list[str]:
        notes = []
        if self.endings:
            ranked = sorted(self.endings.items(), key=lambda item: (-item[1], item[0]))
            kinds = ", ".join(f"{count} {ending}" for ending, count in ranked[:5])
            more = " …" if len(self.endings) > 5 else ""
            notes.append(f"{self.endings.total()} files that are no images ({kinds}{more}) were passed over.")
        if self.loose:
            notes.append(f"{self.loose} images that lie in no class folder were passed over.")
        if self.broken:
            notes.append(f"{self.broken} links that lead nowhere, or to no file or folder, were passed over.")
        if self.loops:
            notes.append(f"{self.loops} links to a folder above themselves were not followed.")
        if self.empty:
            some = ", ".join(quoted(name) for name in self.empty[:5]) + (" …" if len(self.empty) > 5 else "")
            notes.append(f"{len(self.empty)} class folders hold no images: {some}.")
        return notes


def open_folder(where: str, request: Request, accepts: Callable[[Path], bool] = has_ending) -> Dataset:
    """The Dataset of ``folder:where``. Files below a class folder belong to it, however deep they lie, through links
    too. accepts: whether a file is an image to be read."""
    root = Path(where).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {where}; folder: needs a folder that has a folder for each class")
    name = root.resolve().name
    passed = Passed(accepts)
    below = _folders(root, passed, is_root=True)
    split = [folder for folder in below if folder.name.lower() in SYNONYMS]
    if split and len(split) < len(below):
        others = ", ".join(quoted(text(folder.name)) for folder in below if folder not in split)
        raise InputError(
            f"{where} has split folders ({', '.join(f.name for f in split)}) beside others ({others}); "
            "move the others out, or give every class its folder and no split folder"
        )
    images: list[FolderImage] = []
    for part in split or [root]:
        for kind in _folders(part, passed, is_root=bool(split)):
            files = images_below(kind, passed)
            images += [FolderImage(file, text(kind.name), part.name) for file in files]
            if not files:
                passed.empty.append(text(kind.relative_to(root).as_posix()))
    if not images:
        raise InputError(f"{where} has no images in class folders; put them at {where}/CLASS/x.png ({TITLES})")
    kept, once = _once(name, images)
    listing = Listing(
        ids=[text(image.file.relative_to(root).as_posix()) for image in kept],
        labels=[image.label for image in kept],
        splits=[image.split for image in kept] if split else None,
        notes=(*passed.notes(), *once),
    )
    return open_files(name, [image.file for image in kept], listing, request)


def _folders(folder: Path, passed: Passed, is_root: bool) -> list[Path]:
    """The folders in ``folder``, links to folders too. is_root: what lies beside them belongs to no class."""
    folders = []
    for entry in _entries(folder):
        if _hidden(entry):
            continue
        if entry.is_dir():
            folders.append(entry)
        elif is_root and _is_file(entry, passed):
            passed.loose += passed.accepts(entry)
    return folders


def images_below(kind: Path, passed: Passed) -> list[Path]:
    """The image files below a folder. A link to a folder that encloses it is not followed."""
    files: list[Path] = []

    def walk(folder: Path, above: tuple[Place, ...]) -> None:
        place = _place(folder)
        if place in above:
            passed.loops += 1
            return
        for entry in _entries(folder):
            if _hidden(entry):
                continue
            if entry.is_dir():
                walk(entry, (*above, place))
            elif not _is_file(entry, passed):
                continue
            elif passed.accepts(entry):
                files.append(entry)
            else:
                passed.endings[text(entry.suffix.lower()) or "without ending"] += 1

    walk(kind, (_place(kind.parent),))
    return sorted(files)


def _once(name: str, images: list[FolderImage]) -> tuple[list[FolderImage], list[str]]:
    """Each file once in each split; InputError where links put one file into two classes."""
    first: dict[tuple[Place, str], FolderImage] = {}
    labels: dict[Place, FolderImage] = {}
    for image in images:
        place = _place(image.file)
        other = labels.setdefault(place, image)
        if tidy(other.label).casefold() != tidy(image.label).casefold():
            raise InputError(
                f"{quoted(text(image.file.name))} of {name} is one file in the classes "
                f"{quoted(other.label)} and {quoted(image.label)}, through a link; an image has one label "
                "here: keep one"
            )
        first.setdefault((place, image.split), image)
    again = len(images) - len(first)
    notes = [f"{again} files are other names of a file that was read already (links) and were passed over."]
    return list(first.values()), notes if again else []


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{text(str(folder))} cannot be read: {error.strerror or error}") from error


def _is_file(entry: Path, passed: Passed) -> bool:
    if entry.is_file():
        return True
    passed.broken += 1
    return False


def _place(path: Path) -> Place:
    status = path.stat()
    return status.st_dev, status.st_ino


def _hidden(file: Path) -> bool:
    """Whether an operating system put it there (.DS_Store, ._x.jpg, __MACOSX)."""
    return file.name.startswith(".") or file.name == "__MACOSX"


def text(name: str) -> str:
    """A file name as text that can be written anywhere; bytes of it that are not UTF-8 as their escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
