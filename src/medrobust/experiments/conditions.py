"""The exact conditions under which the numbers of a run hold, for results.json and the report."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np
import torch

from medrobust import naming, prevalence
from medrobust.attacks import Attack, ParametricChange
from medrobust.errors import InputError
from medrobust.evasion import Evasion
from medrobust.experiments.config import SYSTEM, AuditSpec
from medrobust.versions import versions

if TYPE_CHECKING:
    from medrobust.experiments.system import System


def conditions(spec: AuditSpec, system: System, study: str, settings: Collection[str]) -> dict[str, object]:
    """Data, model, threat and machine, so that a reader can repeat the run and tell whether it is the same one.

    settings: fields of ``spec`` that this command reads, beside those of data and model.
    """
    data, classifier, patients = system.data, system.classifier, system.sample.patients
    return {
        "study": study,
        "data": data.name,
        "data_digest": system.data_digest,
        "data_notes": list(system.notes),
        "synthetic": naming.public(data),
        **system.findings,
        "left_out": [{"file": x.file, "reason": x.reason} for x in data.left_out],
        "n_train": _count(system, "train"),
        "n_val": _count(system, "val"),
        "n_test": len(system.test),
        "n_attacked": len(system.sample),
        "n_patients_attacked": None if patients is None else int(np.unique(patients).size),
        "classes": list(classifier.classes),
        "disease_classes": list(system.disease_classes),
        "prevalence": prevalences(spec, system),
        "size": data.size,
        "shapes": None if data.fit != "none" else [list(shape) for shape in data.shapes],
        "preprocessing": classifier.preprocessing and classifier.preprocessing.text,
        "channels": data.channels,
        "fit": data.fit,
        "bits": data.bits,
        "levels": None if data.common_levels is None else data.common_levels // data.span,
        "span": data.span,
        "on_grid": classifier.stored_levels is not None,
        "model": spec.model,
        "model_digest": system.model_digest,
        "trained_here": system.trained_here,
        "provenance": classifier.provenance,
        "parameters": classifier.parameters,
        "answers": ("labels" if classifier.labels_only else "scores") if classifier.black_box else None,
        "head": classifier.head.name,
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "threshold": classifier.threshold or 0.5,
        "seed": spec.seed,
        "norm": spec.norm_name,
        "eps": list(spec.eps) if "eps" in settings else [],
        "attacks": {},
        **dict.fromkeys(("headline", "universal", "detect", "explain")),
        "config": spec.model_dump(mode="json", include={*SYSTEM, *settings}),
        "versions": versions(),
        "hardware": hardware(classifier.device),
    }


def prevalences(spec: AuditSpec, system: System) -> dict[str, float]:
    """Stated shares of studies by class or finding; empty where those of the images count."""
    if spec.prevalence is None:
        return {}
    classes, several = system.classifier.classes, system.classifier.head.multilabel
    return prevalence.placed(spec.prevalence, classes, [classes[i] for i in system.disease_classes], several=several)


def hardware(device: torch.device) -> str:
    """In words: what the network ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads"


def _count(system: System, side: str) -> int:
    try:
        return len(system.data.split(side))
    except InputError:  # a data set for testing only has no such side
        return 0


def described(attack: Attack | Evasion | ParametricChange) -> dict[str, str]:
    """An attack as the conditions have it."""
    return {"title": attack.title, "settings": _settings(attack), "source": attack.source}


def _settings(attack: Attack | Evasion | ParametricChange) -> str:
    stated = {k: v for k, v in attack.settings.items() if v is not None}
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in stated.items())
