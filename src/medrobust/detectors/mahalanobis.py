"""Mahalanobis distance to the nearest class (Lee et al. 2018, arXiv:1807.03888)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medrobust.detectors.detector import Detector
from medrobust.detectors.features import LayerFeatures
from medrobust.detectors.rule import Logistic, Rule, Sum


class Mahalanobis(Detector):
    """Squared distance to the nearest class mean under one covariance for all classes, then logistic regression.

    layers: None for all layers of the features it is fitted on, as published.

    The covariance is shrunk (Ledoit & Wolf 2004): with fewer images than features it could not be inverted, and a
    feature that never changes would count without limit. The paper's step of noise against the gradient before the
    measurement is left out: it asks for a second pass through the network.
    """

    title = "Mahalanobis"
    source = "Lee et al. 2018, arXiv:1807.03888"
    needs_attacks = False
    uses_bank = True

    def __init__(self, layers: Sequence[str] | None = None) -> None:
        super().__init__(layers)

    def learn(self, bank: LayerFeatures, classes: Tensor, seed: int) -> None:  # noqa: ARG002
        classes = classes.cpu()
        present = classes.unique()
        for name in self.layers_:
            x = bank[name].double().cpu()
            means = torch.stack([x[classes == c].mean(0) for c in present])
            within = x - means[torch.searchsorted(present, classes)]
            # |whiten (x - mean)|^2 is the distance; whitening the means once leaves one product an image
            whiten = torch.linalg.inv(torch.linalg.cholesky(shrunk_covariance(within)))
            self.arrays_[f"whiten/{name}"] = whiten
            self.arrays_[f"means/{name}"] = means @ whiten.T

    def distance(self, table: LayerFeatures, name: str) -> Tensor:
        """float64 (n, classes of the bank): squared distances from each class mean in one layer; differentiable."""
        x = table[name].double()
        white = x @ self.on(f"whiten/{name}", x).T
        return ((white[:, None] - self.on(f"means/{name}", x)[None]) ** 2).sum(2)

    def represent(self, table: LayerFeatures, predicted: Tensor) -> Tensor:  # noqa: ARG002
        return torch.stack([self.distance(table, name).amin(1) for name in self.layers_], 1)

    def make_rule(self, supervised: bool) -> Rule:
        return Logistic() if supervised else Sum()


def shrunk_covariance(centred: Tensor) -> Tensor:
    """(d, d): the covariance of rows (n, d) of mean 0, drawn towards its mean variance (Ledoit & Wolf 2004)."""
    from sklearn.covariance import ledoit_wolf

    covariance, _ = ledoit_wolf(centred.numpy(), assume_centered=True)
    shrunk = torch.from_numpy(covariance)
    # features that never change in a handful of images: keep the matrix invertible
    floor = 1e-9 * float(shrunk.diagonal().mean()) + 1e-12
    return shrunk + floor * torch.eye(len(shrunk), dtype=torch.float64)
