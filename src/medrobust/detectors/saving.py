"""A fitted detector on disk: detector.safetensors and detector.json; no pickle, the json is written last."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medrobust import atomic, json_files, own_files
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.classifier import Classifier
    from medrobust.detectors.detector import Detector

ARRAYS, CARD = "detector.safetensors", "detector.json"
FORMAT = "medrobust detector 2"
KIND = "detector"
"""The kind that the metadata of ARRAYS states."""
BANK, RULE = "detector/", "rule/"


def save(detector: Detector, folder: Path) -> Path:
    """See ``Detector.save``."""
    from safetensors.torch import save as as_bytes

    if detector.rule_ is None:
        raise InputError(f"{detector.title} is not fitted yet; there is nothing to save")
    arrays = {BANK + name: values for name, values in detector.arrays_.items()}
    arrays |= {RULE + name: values for name, values in detector.rule_.arrays.items()}
    tensors = {name: values.cpu().contiguous().clone() for name, values in sorted(arrays.items())}
    content = as_bytes(tensors, own_files.metadata(KIND))
    card = {
        "format": FORMAT,
        "kind": type(detector).__name__,
        "settings": detector.settings,
        "layers": list(detector.layers_),
        "rule": detector.rule_.name,
        "fitted": detector.info_,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    own_files.check_safetensors(folder / ARRAYS, KIND)
    own_files.check_json(folder / CARD, lambda card: card.get("format") == FORMAT, KIND)
    with atomic.disk_errors(folder):
        (folder / CARD).unlink(missing_ok=True)  # so that a kill from here on reads as incomplete
    atomic.write_bytes(folder / ARRAYS, content)
    atomic.write_text(folder / CARD, json.dumps(card, indent=1, sort_keys=True) + "\n")
    return folder


def load(folder: Path, classifier: Classifier | None) -> Detector:
    """See ``Detector.load``."""
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    from medrobust.detectors import kinds

    card, content = _read(folder)
    by_name = kinds()
    if card["kind"] not in by_name:
        raise InputError(f"{folder / CARD} names a detector {card['kind']!r} that is not known here")
    try:
        arrays = from_bytes(content)
        detector = by_name[card["kind"]](**card["settings"])
    except (SafetensorError, TypeError) as error:
        raise InputError(f"{folder} holds no readable detector: {error}") from error
    detector.layers_ = tuple(card["layers"])
    detector.info_ = dict(card["fitted"])
    detector.arrays_ = {k.removeprefix(BANK): v for k, v in arrays.items() if k.startswith(BANK)}
    rules = [r for r in (detector.make_rule(s) for s in (True, False)) if r.name == card["rule"]]
    if not rules:
        raise InputError(f"{folder / CARD} names a rule {card['rule']!r} that is not known here")
    rule = rules[0]
    rule.arrays = {k.removeprefix(RULE): v for k, v in arrays.items() if k.startswith(RULE)}
    detector.rule_ = rule
    return detector if classifier is None else detector.attach(classifier)


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    for name in (CARD, ARRAYS):
        if not (folder / name).is_file():
            raise InputError(f"no detector in {folder}: {name} is missing; was its writing interrupted?")
    card = json_files.read_object(folder / CARD)
    needed = {"kind": str, "settings": dict, "layers": list, "rule": str, "fitted": dict, "sha256": str}
    if card.get("format") != FORMAT or not all(isinstance(card.get(name), kind) for name, kind in needed.items()):
        raise InputError(f"{folder / CARD} describes no detector; give the folder that Detector.save wrote")
    if not all(isinstance(layer, str) for layer in card["layers"]):
        raise InputError(f"{folder / CARD} names layers that are no text; give the folder that Detector.save wrote")
    content = (folder / ARRAYS).read_bytes()
    if hashlib.sha256(content).hexdigest() != card["sha256"]:
        raise InputError(f"{folder / ARRAYS} is not the file that {CARD} describes (sha256 differs): restore both")
    return card, content
