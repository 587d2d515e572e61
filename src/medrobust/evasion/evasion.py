"""The interface of evasions: a direction at every step. The loop owns the batch and keeps the best result."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from medrobust.attacks import Batch, State
from medrobust.classifier import Classifier
from medrobust.detectors import Detector
from medrobust.detectors.features import LayerFeatures
from medrobust.errors import InputError
from medrobust.evasion.joint import JointOutput
from medrobust.images import Images, Lazy, PerImage
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal


class Evasion(ABC):
    """Fools a classifier past a detector that it knows. Hyper-parameters at birth, data at the call.

    steps: gradients an image. step: length of the first one as a fraction of eps; it falls linearly to a tenth.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    needs_reference: ClassVar[bool] = False
    """Needs features of clean images of every class."""
    random_start: ClassVar[bool] = True

    def __init__(self, steps: int = 40, step: float = 0.25) -> None:
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        if not step > 0:
            raise InputError(f"step is a positive fraction of eps, got {step}")
        self.steps, self.step_size = steps, step

    @abstractmethod
    def direction(self, output: JointOutput, batch: Batch, state: State) -> Images:
        """The direction of ascent (n, c, h, w); ``state`` has an entry a row, its tensors may be replaced."""

    def learn(  # noqa: B027 - many have nothing to learn
        self, detector: Detector, reference: LayerFeatures, classes: Tensor, threshold: float
    ) -> None:
        """Learn from clean images: layer -> (m, d) with "logits", and the classes (m,) decided on them."""

    def begin(self, output: JointOutput, batch: Batch) -> State:  # noqa: ARG002
        """The state of each row; ``output``: of the clean images."""
        return {}

    @property
    def evaluates_clean(self) -> bool:
        """``begin`` needs a look at the clean images."""
        return type(self).begin is not Evasion.begin

    def start(self, batch: Batch) -> Images:
        """Where each row begins."""
        if not self.random_start:
            return batch.origin.clone()
        return batch.ball.move(batch.origin, batch.origin + batch.ball.eps * batch.draw("evasion start"))

    def step(self, images: Images, direction: Images, batch: Batch) -> Images:
        """The next images, legal."""
        length = self.step_size * (1 - 0.9 * self.progress(batch)).view(-1, 1, 1, 1)
        return batch.ball.move(batch.origin, images + length * batch.ball.eps * batch.ball.ascent(direction))

    def progress(self, batch: Batch) -> PerImage:
        """How much of its steps each row has made, in [0, 1)."""
        return batch.index / self.steps

    @property
    def settings(self) -> dict[str, object]:
        """Everything that a result depends on, for specs and reports."""
        return {k: v for k, v in sorted(vars(self).items()) if not k.startswith("_")}

    def __call__(
        self,
        classifier: Classifier,
        detector: Detector,
        images: Images,
        goal: Goal,
        ball: Ball,
        threshold: float,
        *,
        seed: int = 0,
        ids: Sequence[Id] | None = None,
        reference: Images | Lazy | Mapping[str, Tensor] | None = None,
        full: bool = False,
    ) -> Images:
        """Attacked images (n, c, h, w) in the ball and in [0, 1]: of those that fool the classifier, for each image
        the one the real detector scores lowest, or the last attempt.

        threshold: an image that is fooled and scores no higher is finished, unless ``full``.
        reference: clean images that the attacker holds, or their features; some evasions need them.
        seed, ids: randomness is keyed by them (ids: position when not given), never by the batch.
        """
        from medrobust.evasion.loop import run

        return run(
            self,
            classifier,
            detector,
            images,
            goal,
            ball,
            threshold,
            seed=seed,
            ids=ids,
            reference=reference,
            full=full,
        ).images

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"


def towards(output: JointOutput, kappa: float, loss: PerImage) -> PerImage:
    """Per row: the classifier's margin until it is fooled by ``kappa`` logits, then ``loss``."""
    return torch.where(output.margin.detach() < kappa, output.margin, loss)
