"""folder:DIR: a folder a class, DIR/normal/x.png, or one level down, DIR/train|val|test/normal/x.png."""

from __future__ import annotations

from pathlib import Path

from medrobust.data.dataset import Dataset
from medrobust.data.files import open_files
from medrobust.data.source import Listing, Request
from medrobust.data.splits import SYNONYMS
from medrobust.errors import InputError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def open_folder(where: str, request: Request) -> Dataset:
    """The Dataset of ``folder:where``. Files below a class folder belong to it, however deep they lie."""
    root = Path(where).expanduser()
    if not root.is_dir():
        raise InputError(f"there is no folder {where}; folder: needs a folder that has a folder for each class")
    name = root.resolve().name
    below = _folders(root)
    split = [folder for folder in below if folder.name.lower() in SYNONYMS]
    if split and len(split) < len(below):
        others = ", ".join(folder.name for folder in below if folder not in split)
        raise InputError(
            f"{where} has split folders ({', '.join(f.name for f in split)}) beside others ({others}); "
            "move the others out, or give every class its folder and no split folder"
        )
    files: list[Path] = []
    labels: list[str] = []
    sides: list[str] = []
    passed = 0
    for part in split or [root]:
        for kind in _folders(part):
            inside = [f for f in sorted(kind.rglob("*")) if f.is_file() and not _hidden(f, root)]
            images = [f for f in inside if f.suffix.lower() in SUFFIXES]
            passed += len(inside) - len(images)
            files += images
            labels += [kind.name] * len(images)
            sides += [part.name] * len(images)
    if not files:
        raise InputError(
            f"{where} has no images in class folders; put them at {where}/CLASS/x.png ({', '.join(SUFFIXES)})"
        )
    listing = Listing(
        ids=[f.relative_to(root).as_posix() for f in files],
        labels=labels,
        splits=sides if split else None,
        notes=(f"{passed} files that are no images were passed over.",) if passed else (),
    )
    return open_files(name, files, listing, request)


def _folders(folder: Path) -> list[Path]:
    return [f for f in sorted(folder.iterdir()) if f.is_dir() and not _hidden(f, folder)]


def _hidden(file: Path, root: Path) -> bool:
    """Whether an operating system put it there (.DS_Store, ._x.jpg, __MACOSX)."""
    return any(part.startswith(".") or part == "__MACOSX" for part in file.relative_to(root).parts)
