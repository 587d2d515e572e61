"""Images, classifiers and files that a study declares, as they lie on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medrobust.errors import InputError
from medrobust.grid import Data, Model


def load(data: Data, root: Path) -> Any:
    """The Dataset that ``data`` declares."""
    from medrobust import data as data_room

    spec = data.spec.replace("{data}", str(root))
    images = data_room.load(
        spec,
        size=data.size,
        channels=data.channels,
        seed=data.seed,
        label=data.label,
        findings=data.findings,
        separator=data.separator,
        patient=data.patient,
        fit=data.fit,
    )
    if data.classes:
        images = images.of_classes(data.classes)
    return images if data.each is None else images.train_on(data.each, data.seed)


def place_of(data: Data, root: Path) -> Path | None:
    """Where its files lie; None where it has none (phantoms, sets that a package downloads)."""
    kind, _, where = data.spec.replace("{data}", str(root)).partition(":")
    if kind == "phantom" or (kind == "medmnist" and not where.endswith(".npz")):
        return None
    return Path(where)


def found(models: Path | None, model: Model) -> Path | None:
    """The saved classifier of that name below ``models``: NAME/model or NAME."""
    if models is None:
        return None
    for folder in (models / model.name / "model", models / model.name):
        if (folder / "model.json").is_file():
            return folder
    return None


def file_in(text: str, root: Path) -> Path:
    """A file that a model stands on; InputError where it is not there."""
    path = Path(text.replace("{data}", str(root)))
    if not path.is_file():
        raise InputError(f"{path} is not there; the study's models start from it: see --data")
    return path
