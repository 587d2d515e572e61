"""A classifier of several findings as one of their sets: what needs one class an image sees each set as a class.

The logit of a set is the sum of those of its findings. So the decision is the same set, the cross-entropy of a set is
the sum of those of its findings, and its lead over the next set is the smallest margin of a finding: an attack on the
one is an attack on the other. Of many findings, the sets that no label holds are one class together: the decision and
the lead stay the same, and the cross-entropy counts of those sets the best one alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, product

import numpy as np
import torch
from torch import Tensor, nn

import medrobust.data.findings as findings
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments.system import System, model_digest
from medrobust.images import UNKNOWN, Logits, PerImage

EVERY = 8
"""Findings up to which every set of them is a class, 256 at most."""
MOST = 52
"""Findings; the number of a set is exact in double precision."""
OTHER = "another set"


class SetNetwork(nn.Module):
    """Normalised images to the logits (n, m) of ``sets``, int64 (m, k), in their order; of fewer than all sets
    (n, m + 1): the last one is that of the best of the others.
    """

    sets: Tensor
    offset: Tensor
    flips: Tensor
    powers: Tensor
    numbers: Tensor

    def __init__(self, classifier: Classifier, sets: np.ndarray) -> None:
        super().__init__()
        self.net = classifier.plain_net
        k = sets.shape[1]
        none = torch.zeros(1, k)
        moved = none if classifier.threshold is None else classifier.head.offset(classifier.threshold, none)
        powers = 2.0 ** torch.arange(k, dtype=torch.float64)
        # a set beside those of the labels differs from the decision in two findings at most, or does not matter
        flips = torch.tensor(
            [[i in chosen for i in range(k)] for r in range(3) for chosen in combinations(range(k), r)]
        )
        for name, value in (
            ("sets", torch.from_numpy(sets).float()),
            ("offset", moved),
            ("flips", flips.float()),
            ("powers", powers),
            ("numbers", torch.from_numpy(sets).double() @ powers),
        ):
            self.register_buffer(name, value)

    def forward(self, images: Tensor) -> Logits:
        logits: Tensor = self.net(images) - self.offset
        known = logits @ self.sets.T
        if len(self.sets) == 2 ** self.sets.shape[1]:
            return known
        return torch.cat([known, self._other(logits)[:, None]], 1)

    def _other(self, logits: Logits) -> PerImage:
        """The largest logit of a set that is none of ``sets``: what the decision loses by the cheapest flips that lead
        to one. Below all others where two flips lead to none."""
        decided = (logits > 0).double()
        numbers = (decided @ self.powers)[:, None] + ((1 - 2 * decided) * self.powers) @ self.flips.double().T
        lost = torch.where(torch.isin(numbers, self.numbers), torch.inf, logits.abs() @ self.flips.T).amin(1)
        return logits.clamp_min(0).sum(1) - torch.minimum(lost, logits.abs().sum(1) + 1)


def sets(k: int, labels: np.ndarray) -> np.ndarray:
    """int64 (m, k), in the order of their numbers in binary: all sets of k findings, the empty one first; of more than
    EVERY those that ``labels`` (n, k) hold where every finding is known."""
    if k > EVERY:
        return np.unique(labels[(labels != UNKNOWN).all(1)], axis=0)
    return np.array(list(product((0, 1), repeat=k)), dtype=np.int64)


def as_sets(system: System) -> System:
    """The same system with a class for each set of findings.

    InputError for too many findings, and where no image has a known label for all of them.
    """
    classifier, k = system.classifier, len(system.classifier.classes)
    if k > MOST:
        raise InputError(
            f"detectors and explanations take sets of findings as classes, which goes up to {MOST} findings; this "
            f"classifier has {k}"
        )
    if classifier.original is not None:
        raise InputError(
            "detectors and explanations of several findings do not cover a network that another runtime confirms "
            "(ONNX): give it as a torch network"
        )
    every = sets(k, system.data.labels)
    known = of_sets(classifier, every, classifier.classes)
    data, test = _of_sets(system.data, every, known), _of_sets(system.test, every, known)
    present = int(np.unique(test.labels).size)
    all_sets = f"Each set of findings counts as a class: {len(every)} sets of {k} findings"
    note = f"{all_sets}, {present} of them in test images."
    if k > EVERY:
        note = f"{all_sets}, those of the labels ({present} in test images); all others are one class together."
    if lost := len(system.test) - len(test):
        note += f" {lost} test images with an unknown finding are left out."
    return replace(
        system,
        data=data,
        test=test,
        sample=_of_sets(system.sample, every, known),
        classifier=known,
        model_digest=model_digest(known),
        data_digest=data.digest(),
        disease_classes=tuple(i for i, name in enumerate(known.classes) if name != findings.NOTHING),
        notes=(*system.notes, note),
        class_notes=(*system.class_notes, note),
        of_findings=system,
    )


def of_sets(classifier: Classifier, every: np.ndarray, order: Sequence[str]) -> Classifier:
    """A classifier of findings as one of the sets ``every`` (m, k), see ``sets``; order: the findings of its columns.

    InputError where they are not those of the classifier.
    """
    if set(order) != set(classifier.classes):
        raise InputError(f"the second model knows {', '.join(classifier.classes)}, the first {', '.join(order)}")
    names = [findings.text(row, order) for row in every]
    own = every[:, [list(order).index(name) for name in classifier.classes]]
    return Classifier(
        SetNetwork(classifier, own).to(classifier.device),
        names if len(every) == 2 ** every.shape[1] else [*names, OTHER],
        mean=classifier.mean,
        std=classifier.std,
        channels=classifier.channels,
        size=classifier.size,
        preprocessing=classifier.preprocessing,
        provenance=classifier.provenance,
    )


def _of_sets(data: Dataset, every: np.ndarray, known: Classifier) -> Dataset:
    """The images of which every finding is known; the label is the number of their set."""
    index = np.flatnonzero((data.labels != UNKNOWN).all(1))
    if not index.size:
        raise InputError(f"no image of {data.name} has a known label for every finding")
    part = data.select(index)
    powers = 2 ** np.arange(every.shape[1], dtype=np.int64)[::-1]
    return replace(part, classes=known.classes, labels=np.searchsorted(every @ powers, part.labels @ powers))
