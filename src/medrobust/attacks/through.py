"""PGD whose examples are to survive transformations of the image (Athalye et al. 2018, arXiv:1707.07397)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from medrobust.attacks.attack import Batch, ModelOutput, State, evaluate
from medrobust.attacks.iterated import PGD
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images

WON = 0.1
"""Weight of a transformation after which the goal is reached already, beside one after which it is not."""


class PGDThrough(PGD):
    """PGD along the sum of the gradients after each transformation, each of the same length.

    The margin is that after the worst transformation: run with ``full=True``, it is what the example kept maximises.

    after: (classifier, images) -> the classifiers of transformed images, one a transformation.
    """

    title = "PGD through transformations"
    source = "Madry et al. 2018, arXiv:1706.06083; Athalye et al. 2018, arXiv:1707.07397"
    repairs = False

    def __init__(
        self, after: Callable[[Classifier, Images], Sequence[Classifier]], steps: int = 20, step: float | None = None
    ) -> None:
        super().__init__(steps, step)
        self._after = after
        self._made: dict[int, Sequence[Classifier]] = {}

    def evaluate(self, classifier: Classifier, images: Images, batch: Batch, state: State) -> ModelOutput:  # noqa: ARG002
        if id(classifier) not in self._made:
            self._made[id(classifier)] = self._after(classifier, images)
            if not self._made[id(classifier)]:
                raise InputError("an attack through transformations needs one at least")
        total: Tensor | None = None
        outputs = [evaluate(c, images, batch.goal, self.loss, gradient=True) for c in self._made[id(classifier)]]
        for output in outputs:
            assert output.gradient is not None
            length = output.gradient.flatten(1).abs().sum(1).view(-1, 1, 1, 1)
            weight = torch.where(output.reached, WON, 1.0).view(-1, 1, 1, 1)
            part = weight * output.gradient / torch.where(length > 0, length, torch.ones_like(length))
            total = part if total is None else total + part
        return replace(
            outputs[0],
            margin=torch.stack([o.margin for o in outputs]).amin(0),
            reached=torch.stack([o.reached for o in outputs]).all(0),
            loss=torch.stack([o.loss for o in outputs]).mean(0),
            no_gradient=torch.stack([o.no_gradient for o in outputs]).all(0),
            gradient=total,
        )

    def budget_exhausted(self, batch: Batch, state: State) -> Tensor:  # noqa: ARG002
        # a forward pass after the last step would be one of the classifier without transformations
        return batch.index + 1 >= self.steps
