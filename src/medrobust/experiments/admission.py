"""The first look at a classifier, on some of the images that it is going to be judged on.

Every command and every cell of a study that judges a classifier against labels lets it in here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.splits import group_names
from medrobust.draws import seeded
from medrobust.errors import InputError
from medrobust.experiments.output_order import not_asked, outputs_in_order, question
from medrobust.inspection import EXAMINED, Inspection
from medrobust.models import Converted
from medrobust.progress import Progress
from medrobust.results import Check

ASKED = 256
"""Labelled images from which the order of the outputs is judged."""

COMPARED = 32
"""Images on which a converted network is compared with its original."""


class Admitted(NamedTuple):
    """inspection: what the network does with images. order: whether its outputs are in the order of the classes."""

    inspection: Inspection
    order: Check

    @property
    def doubts(self) -> list[str]:
        """What limits every number, a sentence each."""
        return [*filter(None, [question(self.order)]), *self.inspection.doubts]

    @property
    def sentences(self) -> list[str]:
        """All findings, doubts first."""
        return [*self.doubts, *self.inspection.notes]

    @property
    def findings(self) -> dict[str, list[str]]:
        """For results files: the same keys in those of every command."""
        return {"model_doubts": list(self.inspection.doubts), "model_notes": list(self.inspection.notes)}


def admit(
    classifier: Classifier, part: Dataset, progress: Progress, seed: int = 0, *, classifies: bool = True
) -> Admitted:
    """What the network does with images of ``part``, every sentence of it told to ``progress``.

    classifies: whether its decisions are used, not its features alone. InputError, in one line, for a network that
    cannot be used.
    """
    converted = isinstance(classifier.net, Converted)
    sample = part.most_frequent_shape().tensors(COMPARED if converted else EXAMINED, seed)[0]
    inspection = classifier.examine(sample)
    with seeded("order of outputs", seed, classifier.device):  # a random network answers alike in every run
        order = _order(classifier, part, seed) if classifies else not_asked("its decisions are not used")
    admitted = Admitted(inspection, order)
    for sentence in admitted.sentences:
        progress.note(sentence)
    return admitted


def _order(classifier: Classifier, part: Dataset, seed: int) -> Check:
    """Of the outputs, from labelled images."""
    try:
        sample = part.for_network(classifier).sample(ASKED, seed)
    except InputError as error:  # whoever needs these classes raises it
        return not_asked(str(error))
    size = classifier.batch_size((1, *sample.largest))
    logits = torch.cat([classifier.logits(images) for images, _, _ in sample.batches(size)])
    probability, decisions = classifier.to_probabilities(logits).numpy(), classifier.head.decide(logits).numpy()
    patients = None if sample.patients is None else np.array(group_names(sample.ids, sample.patients))
    return outputs_in_order(probability, sample.labels, decisions, classifier.classes, patients)
