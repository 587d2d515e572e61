"""How good the answers of one seed are: accuracy, sensitivity, specificity, balanced accuracy, AUROC."""

from __future__ import annotations

import numpy as np

from medrobust import stats

METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "auroc")
TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "auroc": "AUROC",
}


def scored(probability: np.ndarray, labels: np.ndarray, healthy: tuple[int, ...]) -> dict[str, float]:
    """Every metric of probabilities (n, k), all from images that were not trained on.

    healthy: classes that stand for no disease. Sensitivity: share of diseased images decided as a disease; specificity:
    share of healthy ones decided as healthy; NaN where no class is healthy. AUROC: one class against the rest, mean
    over classes (with two classes: the usual one).
    """
    decided, k = probability.argmax(1), probability.shape[1]
    out = {
        "accuracy": float((decided == labels).mean()),
        "balanced_accuracy": float(np.mean([(decided[labels == c] == c).mean() for c in range(k)])),
        "sensitivity": float("nan"),
        "specificity": float("nan"),
        "auroc": float(np.mean([stats.auroc(probability[:, c], labels == c).value for c in range(k)[k == 2 :]])),
    }
    if healthy:
        well, called_well = np.isin(labels, healthy), np.isin(decided, healthy)
        out["sensitivity"] = float((~called_well[~well]).mean())
        out["specificity"] = float(called_well[well].mean())
    return out
