"""The exact conditions under which the numbers of a run hold, for results.json and the report."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np
import torch

from medrobust.attacks import Attack
from medrobust.errors import InputError
from medrobust.evasion import Evasion
from medrobust.experiments.config import AuditSpec
from medrobust.experiments.system import System
from medrobust.versions import versions


def conditions(spec: AuditSpec, subject: System, study: str) -> dict[str, Any]:
    """Data, model, threat and machine, so that a reader can repeat the run and tell whether it is the same one."""
    data, classifier, patients = subject.data, subject.classifier, subject.sample.patients
    return {
        "study": study,
        "data": data.name,
        "data_digest": subject.data_digest,
        "data_notes": list(subject.notes),
        **subject.findings,
        "left_out": [{"file": x.file, "reason": x.reason} for x in data.left_out],
        "n_train": _count(subject, "train"),
        "n_val": _count(subject, "val"),
        "n_test": len(subject.test),
        "n_attacked": len(subject.sample),
        "n_patients_attacked": None if patients is None else int(np.unique(patients).size),
        "classes": list(classifier.classes),
        "disease_classes": list(subject.disease_classes),
        "size": data.size,
        "channels": data.channels,
        "fit": data.fit,
        "bits": data.bits,
        "model": spec.model,
        "model_digest": subject.model_digest,
        "trained_here": subject.trained_here,
        "provenance": classifier.provenance,
        "parameters": classifier.parameters,
        "head": classifier.head.name,
        "mean": list(classifier.mean),
        "std": list(classifier.std),
        "threshold": classifier.threshold or 0.5,
        "seed": spec.seed,
        "norm": {"linf": "Linf", "l2": "L2"}[spec.norm],
        "eps": list(spec.eps),
        "attacks": {},
        **dict.fromkeys(("headline", "universal", "detect", "explain")),
        "asked": spec.model_dump(mode="json"),
        "versions": versions(),
        "hardware": hardware(classifier.device),
    }


def hardware(device: torch.device) -> str:
    """In words: what the network ran on."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {os.cpu_count()} cores ({platform.machine()}), {torch.get_num_threads()} threads"


def _count(subject: System, side: str) -> int:
    try:
        return len(subject.data.split(side))
    except InputError:  # a data set for testing only has no such side
        return 0


def described(attack: Attack | Evasion) -> dict[str, str]:
    """An attack as the conditions have it."""
    return {"title": attack.title, "settings": _settings(attack), "source": attack.source}


def _settings(attack: Attack | Evasion) -> str:
    known = {k: v for k, v in attack.settings.items() if v is not None}
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in known.items())
