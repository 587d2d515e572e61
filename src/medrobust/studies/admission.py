"""The first look at a classifier, on a few of the images that it is going to be judged on."""

from __future__ import annotations

from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.inspection import EXAMINED, Inspection
from medrobust.progress import Progress


def admit(classifier: Classifier, part: Dataset, progress: Progress, seed: int = 0) -> Inspection:
    """What the network does with images of ``part``, every sentence of it told to ``progress``.

    InputError, in one line, for a network that cannot be used.
    """
    found = classifier.examine(part.tensors(EXAMINED, seed)[0])
    for sentence in found.sentences:
        progress.note(sentence)
    return found
