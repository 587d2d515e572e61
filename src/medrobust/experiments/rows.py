"""One row a number: study, data, model, attack, norm, eps, seed, metric, value, low, high, n, status, note."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medrobust import guessing, stats
from medrobust.experiments.checks import TOLERATED
from medrobust.stats import Estimate

Row = dict[str, Any]


@dataclass
class Rows:
    """Collects the rows of one run; what they share is said once."""

    study: str
    data: str
    model: str
    norm: str
    seed: int
    rows: list[Row] = field(default_factory=list)

    def add(self, attack: str, eps: float, metric: str, estimate: Estimate, status: str = "ok", note: str = "") -> None:
        """eps: fraction of the pixel range. Numbers that are not finite become null, with the reason in ``note``."""
        numbers = [float(v) if math.isfinite(v) else None for v in estimate[:3]]
        self.rows.append(
            {
                "study": self.study,
                "data": self.data,
                "model": self.model,
                "attack": attack,
                "norm": self.norm,
                "eps": eps,
                "seed": self.seed,
                "metric": metric,
                "value": numbers[0],
                "low": numbers[1],
                "high": numbers[2],
                "n": estimate.n,
                "status": status,
                "note": note,
            }
        )

    def doubt(self, attacks: Collection[str], why: str) -> None:
        """Every result of those attacks reads inconclusive; what they cost stays as it is."""
        for row in self.rows:
            metric = row["metric"]
            if row["attack"] in attacks and metric != "inconclusive" and not metric.endswith("_per_image"):
                row["status"] = "inconclusive"
                row["note"] = why if why in row["note"] else "; ".join(filter(None, (why, row["note"])))


MANY = 20
"""With more classes than this, numbers for each class would bury the others."""


def clean_rows(
    rows: Rows,
    probability: np.ndarray,
    labels: np.ndarray,
    decisions: np.ndarray,
    classes: tuple[str, ...],
    patients: np.ndarray | None,
) -> None:
    """Clean performance on the whole test split: probability (n, k), labels and decisions (n,)."""
    right = decisions == labels
    rows.add("none", 0.0, "accuracy", stats.proportion(right, patients))
    recalls = [stats.proportion(right[labels == k], _of(patients, labels == k)) for k in range(len(classes))]
    chance = guessing.of(right, labels, patients)
    rows.add("none", 0.0, "balanced_accuracy", chance.balanced)
    level = Estimate(chance.level, math.nan, math.nan, labels.size)
    rows.add("none", 0.0, "guessing", level, note="an answer that never changes")
    if len(classes) == 2:
        rows.add("none", 0.0, "auroc", stats.auroc(probability[:, 1], labels == 1, patients))
    if len(classes) <= MANY:
        for k, name in enumerate(classes):
            mine = labels == k
            rows.add("none", 0.0, f"sensitivity:{name}", recalls[k])
            specificity = stats.proportion((decisions != k)[~mine], _of(patients, ~mine))
            rows.add("none", 0.0, f"specificity:{name}", specificity)
            rows.add("none", 0.0, f"auroc:{name}", stats.auroc(probability[:, k], mine, patients))
    confidence = probability[np.arange(labels.size), decisions]
    ece = stats.calibration_error(confidence, right)
    rows.add("none", 0.0, "ece", Estimate(ece, math.nan, math.nan, labels.size), note="15 bins of equal size")
    rows.add("none", 0.0, "brier", stats.mean(((probability - np.eye(len(classes))[labels]) ** 2).sum(1), patients))


def attack_rows(
    rows: Rows,
    attack: str,
    eps: tuple[float, ...],
    star: np.ndarray,
    labels: np.ndarray,
    after: np.ndarray,
    blind: np.ndarray,
    classes: tuple[str, ...],
    patients: np.ndarray | None,
    doubt: str = "",
) -> None:
    """What an attack did at each eps, from one eps* an image.

    star: (n,) smallest eps that fooled; 0 wrong before, inf never. after: decisions at eps*.
    blind: (n,) images whose gradient vanished and that were never fooled. doubt: why this attack is not believed.
    """
    start_right = star > 0
    for at in eps:
        held = star > np.float32(at)  # eps* is float32: compare at its precision
        lost = int((held & blind).sum())
        note = doubt or (f"{lost} of {held.size} images had no usable gradient" if lost else "")
        status = "inconclusive" if doubt or lost >= max(1, TOLERATED * held.size) else "ok"
        rows.add(attack, at, "accuracy", stats.proportion(held, patients), status, note)
        fooled = stats.proportion(~held[start_right], _of(patients, start_right))
        rows.add(attack, at, "success", fooled, status, note)
        if len(classes) > MANY:
            continue
        for a, source in enumerate(classes):
            mine = start_right & (labels == a)
            for b, goal in enumerate(classes):
                if a != b:
                    flipped = (~held & (after == b))[mine]
                    share = stats.proportion(flipped, _of(patients, mine))
                    rows.add(attack, at, f"flip:{source}->{goal}", share, status, note)
    middle = stats.median(star[start_right], _of(patients, start_right))
    beyond = "" if math.isfinite(middle.value) else "above the grid"
    rows.add(attack, max(eps), "eps_star_median", middle, "inconclusive" if doubt else "ok", doubt or beyond)
    rows.add(attack, max(eps), "inconclusive", stats.proportion(blind & (star > 0), patients))


def noise_rows(
    rows: Rows,
    eps: tuple[float, ...],
    decisions: np.ndarray,
    labels: np.ndarray,
    right: np.ndarray,
    classes: tuple[str, ...],
    patients: np.ndarray | None,
) -> None:
    """Accuracy and directions under random noise: the control of every share that an attack turns.

    decisions: (n, len(eps)). right: bool (n,), read correctly without noise.
    """
    for i, at in enumerate(eps):
        rows.add("noise", at, "accuracy", stats.proportion(decisions[:, i] == labels, patients))
        if len(classes) > MANY:
            continue
        for a, source in enumerate(classes):
            chosen = right & (labels == a)
            for b, goal in enumerate(classes):
                if a != b:
                    share = stats.proportion((decisions[:, i] == b)[chosen], _of(patients, chosen))
                    rows.add("noise", at, f"flip:{source}->{goal}", share)


def _of(groups: np.ndarray | None, mask: np.ndarray) -> np.ndarray | None:
    return None if groups is None else groups[mask]
