"""A classifier of several findings as one of their sets: what needs one class an image sees each set as a class.

The logit of a set is the sum of those of its findings. So the decision is the same set, the cross-entropy of a set is
the sum of those of its findings, and its lead over the next set is the smallest margin of a finding: an attack on the
one is an attack on the other.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

import medrobust.data.findings as findings
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments.system import System, model_digest
from medrobust.images import UNKNOWN

MOST = 8
"""Findings; their sets are at most 256 classes."""


class SetNetwork(nn.Module):
    """Normalised images to the logits (n, 2^k) of the sets, in the order of ``sets``."""

    sets: Tensor
    offset: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.net = classifier.plain_net
        k = len(classifier.classes)
        none = torch.zeros(1, k)
        self.register_buffer("sets", torch.from_numpy(sets(k)).float())
        moved = none if classifier.threshold is None else classifier.head.offset(classifier.threshold, none)
        self.register_buffer("offset", moved)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.net(images)
        return (logits - self.offset) @ self.sets.T


def sets(k: int) -> np.ndarray:
    """int64 (2^k, k): all sets of k findings; the empty one first."""
    return np.array(list(product((0, 1), repeat=k)), dtype=np.int64)


def as_sets(system: System, command: str) -> System:
    """The same system with a class for each set of findings. command: for errors.

    InputError for too many findings, and where no image has a known label for all of them.
    """
    classifier, k = system.classifier, len(system.classifier.classes)
    if k > MOST:
        raise InputError(
            f"medrobust {command} takes each set of findings as a class, which goes up to {MOST} findings; this "
            f"classifier has {k}"
        )
    if classifier.original is not None:
        raise InputError(
            f"medrobust {command} of several findings does not cover a network that is confirmed by another runtime "
            "(ONNX): give it as a torch network; medrobust audit and universal cover it"
        )
    names = tuple(findings.text(row, classifier.classes) for row in sets(k))
    known = Classifier(
        SetNetwork(classifier),
        names,
        mean=classifier.mean,
        std=classifier.std,
        channels=classifier.channels,
        size=classifier.size,
        preprocessing=classifier.preprocessing,
        provenance=classifier.provenance,
    )
    data, test = _of_sets(system.data, names), _of_sets(system.test, names)
    present = int(np.unique(test.labels).size)
    note = (
        f"Each set of findings counts as a class: {len(names)} sets of {k} findings, {present} of them in test images."
    )
    if lost := len(system.test) - len(test):
        note += f" {lost} test images with an unknown finding are left out."
    return replace(
        system,
        data=data,
        test=test,
        sample=_of_sets(system.sample, names),
        classifier=known,
        model_digest=model_digest(known),
        data_digest=data.digest(),
        disease_classes=tuple(range(1, len(names))),
        notes=(*system.notes, note),
        class_notes=(*system.class_notes, note),
    )


def _of_sets(data: Dataset, names: tuple[str, ...]) -> Dataset:
    """The images of which every finding is known; the label is the number of their set."""
    index = np.flatnonzero((data.labels != UNKNOWN).all(1))
    if not index.size:
        raise InputError(f"no image of {data.name} has a known label for every finding")
    part = data.select(index)
    k = data.labels.shape[1]
    return replace(part, classes=names, labels=part.labels @ (2 ** np.arange(k)[::-1]))
