"""Whoever attacks a classifier while it is trained: a hook around each weight step."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from torch import Tensor

from medrobust.classifier import Classifier
from medrobust.images import Images, Labels


class Adversary(Protocol):
    """Changes the images of each minibatch before the weight step, and may learn from the weights after it.

    All its randomness is keyed by the epoch, and all that it learns is in ``tensors``: so a killed training goes on
    to the same bits.
    """

    @property
    def settings(self) -> dict[str, object]:
        """Everything that its work depends on, as JSON: part of the training's name."""

    def begin(self, epoch: int, n: int) -> None:
        """An epoch (from 0) of n images begins."""

    def before(self, images: Images, rows: np.ndarray) -> Images:
        """The images that the weight step uses instead of these augmented ones, at positions ``rows`` of the epoch's
        n."""

    def after(self, classifier: Classifier, images: Images, labels: Labels) -> None:
        """The weight step is done; images: as they were before ``before``."""

    def tensors(self) -> dict[str, Tensor]:
        """Its state so far, on the CPU; kept with the training's state."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up what ``tensors`` gave; {} means nothing was learnt yet."""
