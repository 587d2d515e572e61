"""How fragile a network is, as a few numbers: what studies of size, of training and of classes compare.

One network at a time; every piece is kept, so that a killed study goes on.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from medrobust import training
from medrobust.classifier import Classifier
from medrobust.data import Dataset


def trained(folder: Path, data: Dataset, model: str, **options: Any) -> Classifier:
    """The classifier in ``folder``/model, trained there first where it is missing; options: of ``training.fit``."""
    folder = Path(folder)
    if not (folder / "model" / "model.json").is_file():
        training.fit(data, model, resume=folder / "training", **options).save(folder / "model")
        shutil.rmtree(folder / "training", ignore_errors=True)
    return Classifier.load(folder / "model")
