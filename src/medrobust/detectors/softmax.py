"""The confidence itself, as a baseline (Hendrycks & Gimpel 2017, arXiv:1610.02136)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.detectors.detector import Detector
from medrobust.detectors.features import LOGITS, LayerFeatures
from medrobust.detectors.rule import Rule, Sum


class MaxSoftmax(Detector):
    """Suspicion is log(1 - the largest softmax probability): the same order, and confident images do not tie.

    It knows nothing of attacks. An attack at full strength is confident too: an area below 0.5 is then the finding,
    not a mistake.
    """

    title = "Maximum softmax"
    source = "Hendrycks & Gimpel 2017, arXiv:1610.02136"
    needs_attacks = False

    def __init__(self) -> None:
        super().__init__((LOGITS,))

    def represent(self, table: LayerFeatures, predicted: Tensor) -> Tensor:  # noqa: ARG002
        logits = table[LOGITS].double()
        top = logits.argmax(1, keepdim=True)
        others = logits.scatter(1, top, -torch.inf)
        return (others.logsumexp(1) - logits.logsumexp(1))[:, None]

    def make_rule(self, supervised: bool) -> Rule:  # noqa: ARG002
        return Sum()
