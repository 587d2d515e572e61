"""A table of n images: one row of features each, labels, and groups."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.detectors.features import PENULTIMATE, Features
from medrobust.detectors.splitting import named, with_copies
from medrobust.errors import InputError


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """n rows (d features) of k classes.

    features: float64 (n, d), finite. labels: int64 (n,). groups: str (n,), rows of one group (a patient, or images
    with the same features) stay on one side of every fold. healthy: the classes that stand for no disease.
    """

    name: str
    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    classes: tuple[str, ...]
    healthy: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.labels)
        if self.features.ndim != 2 or len(self.features) != n or len(self.groups) != n:
            raise InputError(f"{self.name}: {self.features.shape} features, {n} labels, {len(self.groups)} groups")
        bad = ~np.isfinite(self.features)
        if bad.any():
            raise InputError(f"{self.name}: feature {int(np.argwhere(bad)[0][1])} is not finite for some images")
        missing = [c for i, c in enumerate(self.classes) if not (self.labels == i).any()]
        if missing:
            raise InputError(f"{self.name} has no image of class {missing[0]!r}; take more images")

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """sha256 (hex) of everything that a result can depend on."""
        hasher = hashlib.sha256("\x1f".join([*self.classes, str(self.healthy), *self.groups]).encode())
        for array in (self.features, self.labels):
            hasher.update(np.ascontiguousarray(array).tobytes())
        return hasher.hexdigest()


def of_images(
    classifier: Classifier, part: Dataset, healthy: tuple[int, ...] = (), advance: Callable[[int], None] | None = None
) -> FeatureTable:
    """The penultimate features of ``classifier`` for the images of ``part``: what goes into its last linear layer.

    A hand-made feature network (models/handmade.py) gives its features in the same way. advance: told how many
    images were read.
    """
    read, rows = Features(classifier, (PENULTIMATE,)), []
    for chunk in read.stream(part):
        rows.append(chunk[PENULTIMATE])
        if advance is not None:
            advance(len(rows[-1]))
    return of_features(torch.cat(rows).double().numpy(), part, healthy)


def of_features(features: np.ndarray, part: Dataset, healthy: tuple[int, ...] = ()) -> FeatureTable:
    """The table of features (n, d) that were computed before, with the labels and patients of ``part``."""
    patients = None if part.patients is None else part.patients.tolist()
    groups = with_copies(named(len(part), patients), torch.from_numpy(features))
    return FeatureTable(part.name, features, part.labels, groups, part.classes, healthy)


def breast_cancer() -> FeatureTable:
    """Wisconsin diagnostic breast cancer (Street et al. 1993), 569 x 30, from scikit-learn; benign is healthy."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    labels = 1 - data.target.astype(np.int64)  # scikit-learn has malignant first
    groups = with_copies(named(len(labels), None), torch.from_numpy(data.data))
    return FeatureTable("breast cancer", data.data.astype(np.float64), labels, groups, ("benign", "malignant"), (0,))
