"""The record of a training: everything its weights depend on; a network is used again only where all is equal.

Architecture, pretrained weights (by their bytes), training and validation images with labels and shape, recipe, seed,
and the code that trains. Test images are not among it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrobust import code_digest, models
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.models import own_network

if TYPE_CHECKING:
    from medrobust.data import Dataset
    from medrobust.training.recipe import Recipe

KEY = "record"
"""Its name in a classifier's provenance."""

NAMES = {
    "pretrained": "pretrained weights",
    "data": "training images, labels or split",
    "image": "image size, channels or bits",
    "normalisation": "mean or std",
    "code": "version of the code that trains",
}
"""Entries whose values tell a reader nothing."""


def recorded(
    data: Dataset,
    parts: tuple[Dataset, Dataset],
    model: str,
    recipe: Recipe,
    *,
    seed: int,
    pretrained: str | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
) -> dict[str, object]:
    """The record of a training, as plain JSON.

    parts: its training and validation images. mean, std: as given, None where they follow from the rest.
    """
    code = [code_digest.of_module("medrobust.training.fit")]
    if models.is_own(model):
        with own_network.current_folder_first():
            code.append(code_digest.of_module(model.partition(":")[0]))
    record = {
        "architecture": model,
        "pretrained": _content(weights_of(pretrained)),
        "classes": data.classes,
        "data": [part.digest() for part in parts],
        "image": [data.channels, data.size, data.bits],
        "normalisation": [mean, std],
        "seed": seed,
        **recipe.plain(),
        "code": "-".join(code),
    }
    return dict(json.loads(json.dumps(record)))


def weights_of(file: str | None) -> dict[str, str] | None:
    """Pretrained weights by their bytes; those of the hub by the version of timm, which names them."""
    if file is None:
        return None
    if file == "hub":
        from importlib.metadata import version

        return {"file": "hub", "timm": version("timm")}
    weights = models.Pretrained(file)
    named = {} if weights.key is None else {"key": weights.key}
    return {"file": weights.file.name, "sha256": weights.sha256, **named}


def _content(weights: dict[str, str] | None) -> dict[str, str] | None:
    """Without the name of a file: the same weights may lie elsewhere."""
    return {k: v for k, v in weights.items() if k != "file"} if weights and "sha256" in weights else weights


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The differences of two records, as text; "" where they are equal."""
    changed = [k for k in now if before.get(k) != now[k]]
    changed.sort(key=lambda k: k == "code")
    if not changed:
        return ""
    first = changed[0]
    what = NAMES.get(first) or f"{first.replace('_', ' ')} (it was {before.get(first)!r}, now {now[first]!r})"
    return what if len(changed) == 1 else f"{what} and {len(changed) - 1} more"


def kept(folder: Path, record: Mapping[str, Any]) -> Classifier | None:
    """The classifier in ``folder`` where its record equals ``record``; None where there is none.

    InputError, naming what differs, where another classifier is there: it is neither used nor overwritten.
    """
    if not (folder / "model.json").is_file():
        return None
    classifier = Classifier.load(folder, trust_code=str(record.get("architecture")))
    before = classifier.provenance.get(KEY)
    if not isinstance(before, dict):
        raise InputError(f"{folder} holds a classifier that does not say how it was trained; choose another --out")
    if apart := difference(before, record):
        raise InputError(f"{folder} holds a classifier trained with another {apart}; choose another --out")
    return classifier
