"""How good the answers of one seed are: accuracy, sensitivity, specificity, balanced accuracy, AUROC."""

from __future__ import annotations

import numpy as np

from medrobust import stats

METRICS = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "auroc")
TITLES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "sensitivity": "sensitivity",
          "specificity": "specificity", "auroc": "AUROC"}  # fmt: skip


def scored(probability: np.ndarray, labels: np.ndarray, healthy: int | None) -> dict[str, float]:
    """Every metric of probabilities (n, k), all from images that were not trained on.

    Sensitivity: share of diseased images not called ``healthy``; specificity: share of healthy ones called so; NaN
    where no class is healthy. AUROC: one class against the rest, mean over classes (with two classes: the usual one).
    """
    decided, k = probability.argmax(1), probability.shape[1]
    out = {
        "accuracy": float((decided == labels).mean()),
        "balanced_accuracy": float(np.mean([(decided[labels == c] == c).mean() for c in range(k)])),
        "sensitivity": float("nan"),
        "specificity": float("nan"),
        "auroc": float(np.mean([stats.auroc(probability[:, c], labels == c).value for c in range(k)[k == 2 :]])),
    }
    if healthy is not None:
        out["sensitivity"] = float((decided[labels != healthy] != healthy).mean())
        out["specificity"] = float((decided[labels == healthy] == healthy).mean())
    return out
