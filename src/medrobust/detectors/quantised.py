"""Which features are high, and a support vector machine: QFeat (Ma et al. 2020), after SafetyNet (Lu et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medrobust.detectors.detector import Detector
from medrobust.detectors.features import PENULTIMATE, LayerFeatures
from medrobust.detectors.rule import Rule
from medrobust.detectors.support_vectors import SCALE, SupportVectors
from medrobust.errors import InputError


class QuantisedFeatures(Detector):
    """1 where a feature exceeds its mean over the images it is fitted on, else 0; then an RBF machine.

    gamma: 2.8 as published, or "scale": 1 / (number of features x their variance). Two images that differ in 40
        of hundreds of features have a kernel of exp(-2.8 * 40) = 1e-49: at the published value the machine knows
        the images it was fitted on and no other.
    """

    title = "Quantised features"
    source = "Ma et al. 2020, arXiv:1907.10456; Lu et al. 2017, arXiv:1704.00103"

    def __init__(self, gamma: float | str = 2.8, layers: Sequence[str] = (PENULTIMATE,)) -> None:
        if gamma != SCALE and not (isinstance(gamma, int | float) and gamma > 0):
            raise InputError(f"gamma must be positive or {SCALE!r}, got {gamma!r}")
        if len(layers) != 1:
            raise InputError(f"quantised features are read from one layer, got {', '.join(layers) or 'none'}")
        super().__init__(layers)
        self.gamma = gamma

    def learn(self, bank: LayerFeatures, classes: Tensor, seed: int) -> None:  # noqa: ARG002
        self.arrays_ = {"mean": bank[self.layer].double().cpu().mean(0)}

    def represent(self, table: LayerFeatures, predicted: Tensor) -> Tensor:  # noqa: ARG002
        x = table[self.layer].double()
        return (x > self.on("mean", x)).to(torch.float64)

    def make_rule(self, supervised: bool) -> Rule:  # noqa: ARG002
        return SupportVectors(self.gamma)
