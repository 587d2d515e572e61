"""The features themselves and a random forest: DFeat (Ma et al. 2020, arXiv:1907.10456)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from medrobust.detectors.detector import Detector
from medrobust.detectors.features import PENULTIMATE, LayerFeatures
from medrobust.detectors.forest import Forest
from medrobust.detectors.rule import Rule
from medrobust.errors import InputError


class DeepFeatures(Detector):
    """A forest of ``trees`` trees (30 as published) on the penultimate features."""

    title = "Deep features"
    source = "Ma et al. 2020, arXiv:1907.10456"

    def __init__(self, trees: int = 30, layers: Sequence[str] = (PENULTIMATE,)) -> None:
        if len(layers) != 1:
            raise InputError(f"deep features are read from one layer, got {', '.join(layers) or 'none'}")
        if trees < 1:
            raise InputError(f"a forest needs at least 1 tree, got {trees}")
        super().__init__(layers)
        self.trees = trees

    def represent(self, table: LayerFeatures, predicted: Tensor) -> Tensor:  # noqa: ARG002
        return table[self.layer].double()

    def make_rule(self, supervised: bool) -> Rule:  # noqa: ARG002
        return Forest(self.trees)
