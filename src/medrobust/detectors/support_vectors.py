"""A support vector machine with a Gaussian kernel (Cortes & Vapnik 1995), fitted by scikit-learn, kept as arrays."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.detectors.distances import squared
from medrobust.detectors.rule import Rule

SCALE = "scale"


class SupportVectors(Rule):
    """Sum of weight x exp(-gamma x squared distance) over the support vectors, plus a constant; differentiable.

    gamma: a number, or "scale": 1 / (number of features x their variance).
    """

    name = "support vectors"

    def __init__(self, gamma: float | str = SCALE) -> None:
        super().__init__()
        self.gamma = gamma

    def fit(self, numbers: Tensor, attacked: Tensor, *, seed: int, scale_on: Tensor | None = None) -> None:  # noqa: ARG002
        from sklearn.svm import SVC

        spread = float(numbers.var(correction=0))
        gamma = 1 / (numbers.shape[1] * (spread or 1.0)) if isinstance(self.gamma, str) else float(self.gamma)
        model = SVC(kernel="rbf", gamma=gamma, class_weight="balanced")
        model.fit(numbers.numpy(), attacked.numpy())
        vectors = torch.from_numpy(model.support_vectors_.copy())
        self.arrays = {
            "vectors": vectors,
            "centre": vectors.mean(0),
            "weight": torch.from_numpy(model.dual_coef_[0].copy()),
            "bias": torch.from_numpy(model.intercept_.copy()),
            "gamma": torch.tensor([gamma], dtype=torch.float64),
        }

    def decide(self, numbers: Tensor) -> Tensor:
        x = numbers.double()
        far = squared(x, self.on("vectors", x), self.on("centre", x))
        kernel = torch.exp(-self.on("gamma", x) * far)
        return (kernel * self.on("weight", x)).sum(1) + self.on("bias", x)
