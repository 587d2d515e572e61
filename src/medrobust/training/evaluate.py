"""Predictions of a classifier on a whole split, batch by batch, and their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch

from medrobust import stats
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.images import UNKNOWN, Images


class HasImages(Protocol):
    """A Dataset, or Pixels of one."""

    @property
    def labels(self) -> np.ndarray: ...

    def images(self, indices: Sequence[int] | np.ndarray) -> Images: ...


class Scores(NamedTuple):
    """balanced_accuracy: mean sensitivity over the classes; auroc: of the second of two classes, for more the

    mean of one against the rest; loss: cross-entropy, every class weighing the same; n: images behind it. Of several
    findings each is the mean over those that some images have and some do not, of every image in which it is known.
    """

    balanced_accuracy: float
    auroc: float
    loss: float
    n: int


@torch.no_grad()
def evaluate(clf: Classifier, data: HasImages, batch: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """(probabilities float32 (n, k), labels int64 (n,) or (n, k)), both in the order of ``clf.classes``.

    The labels of a Dataset are mapped by class name. Memory does not grow beyond the result.
    """
    if isinstance(data, Dataset):
        data = data.for_network(clf)
    labels = np.asarray(data.labels, dtype=np.int64)
    parts = [
        clf.probabilities(data.images(np.arange(start, min(start + batch, len(labels))))).cpu().numpy()
        for start in range(0, len(labels), batch)
    ]
    return np.concatenate(parts) if parts else np.empty((0, len(clf.classes)), np.float32), labels


def score(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores of probabilities (n, k) against labels (n,) or findings (n, k); InputError where only one class is there
    to judge."""
    if labels.ndim == 2:
        return _of_findings(probabilities, labels)
    present = np.unique(labels)
    if present.size < 2:
        raise InputError("judging needs images of two classes or more; this split holds one, split it stratified")
    right = probabilities.argmax(1) == labels
    own = probabilities[np.arange(labels.size), labels].astype(np.float64)
    loss = -np.log(np.maximum(own, np.finfo(np.float32).tiny))
    among = present[-1:] if probabilities.shape[1] == 2 else present
    areas = [stats.auroc(probabilities[:, k], labels == k).value for k in among]
    return Scores(
        balanced_accuracy=float(np.mean([right[labels == k].mean() for k in present])),
        auroc=float(np.mean(areas)),
        loss=float(np.mean([loss[labels == k].mean() for k in present])),
        n=int(labels.size),
    )


def _of_findings(probabilities: np.ndarray, labels: np.ndarray) -> Scores:
    each = []
    for p, present in zip(probabilities.T, labels.T, strict=True):
        known = present != UNKNOWN
        if np.unique(present[known]).size == 2:  # the finding against its absence, as two classes
            each.append(score(np.stack([1 - p[known], p[known]], 1), present[known]))
    if not each:
        raise InputError("judging needs a finding that some of the images have and some do not; this split has none")
    balanced, area, loss = np.mean([s[:3] for s in each], 0).tolist()
    return Scores(balanced, area, loss, len(labels))
