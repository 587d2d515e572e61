"""Made-up finished audits of the same images, as the report's tests make one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medrobust.results import INCONCLUSIVE, Kind
from medrobust.stats import proportion
from tests.report_runs import Maker, checks

ATTACKS = ["fgsm", "pgd"]


def audit(
    folder: Path,
    *,
    median: float = 0.5,
    clean: float = 0.9,
    n: int = 120,
    names: list[str] | None = None,
    patients: np.ndarray | None = None,
    attacks: list[str] = ATTACKS,
    classes: tuple[str, ...] = ("normal", "pneumonia"),
    blind: bool = False,
    in_doubt: tuple[str, str] | None = None,
    seed: int = 0,
    arrays: dict[str, np.ndarray] | None = None,
    **conditions: Any,
) -> Path:
    """A run folder. blind: attacks without a usable gradient. in_doubt: goal and finding of one such attack. arrays:
    in the place of those made up."""
    m = Maker("chest_xray/labels.csv", list(classes), n=n, median=median, clean=clean, seed=seed)
    m.clean_rows()
    for attack in attacks:
        m.attack_rows(attack, saved=False, zero_gradient=blind)
    m.attack_rows("worst", zero_gradient=blind)
    m.noise_rows(names=("noise",))
    if in_doubt is not None:
        goal, finding = in_doubt
        columns = {"attack": "findings", "eps": 1 / 255, "goal": goal, "class_name": finding}
        note = "for 40 of 40 images there was no usable gradient"
        m.rows.add(Kind.FINDING, "success", proportion(np.zeros(40)), status=INCONCLUSIVE, note=note, **columns)
    m.arrays |= {
        "test_prediction": m.predicted.astype(np.int64),
        "test_content": np.arange(n, dtype=np.int64),
        "attacked": np.arange(n, dtype=np.int64),
    }
    if patients is not None:
        m.arrays["test_patients"] = patients
    m.arrays |= arrays or {}
    conditions = {"test_images": names or [f"{i:012x}" for i in range(n)]} | conditions
    failed = tuple(("gradients are not zero", a) for a in attacks) if blind else ()
    return m.write(folder, checks=checks(attacks, failed), attacks=[*attacks, "worst"], **conditions)
