"""The last step of a detector: numbers that describe an image to one number, above 0 where it looks attacked."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from medrobust.errors import InputError


class Rule(ABC):
    """Fitted once, by scikit-learn where it knows how; from then on a few arrays and a torch formula.

    arrays: everything that was learned, so that a rule is stored without pickle.
    """

    name: ClassVar[str]

    def __init__(self) -> None:
        self.arrays: dict[str, Tensor] = {}

    @abstractmethod
    def fit(self, numbers: Tensor, attacked: Tensor, *, seed: int, scale_on: Tensor | None = None) -> None:
        """numbers: float64 (n, s). attacked: bool (n,). scale_on: rows that set the scale (default: ``numbers``)."""

    @abstractmethod
    def decide(self, numbers: Tensor) -> Tensor:
        """(n,): the higher, the more suspicious; 0 is the boundary that was learned. Differentiable in its formula."""

    def on(self, name: str, like: Tensor) -> Tensor:
        """A learned array where ``like`` lies."""
        return self.arrays[name].to(like.device)


class Logistic(Rule):
    """Logistic regression on numbers scaled to [0, 1], the log-odds given back.

    Classes weigh the same whatever their number. C = 100: there are a handful of numbers and hundreds of rows, the
    penalty only keeps the weights finite where the classes are apart (the papers choose C by cross-validation,
    whose folds would tear the images of a patient apart).
    """

    name = "logistic"

    def fit(self, numbers: Tensor, attacked: Tensor, *, seed: int, scale_on: Tensor | None = None) -> None:  # noqa: ARG002
        from sklearn.linear_model import LogisticRegression

        low, span = _range(numbers if scale_on is None else scale_on)
        model = LogisticRegression(C=100.0, class_weight="balanced", max_iter=5000)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # not converged to 1e-4: the weights are as good as any
            model.fit(((numbers - low) / span).numpy(), attacked.numpy())
        self.arrays = {
            "low": low,
            "span": span,
            "weight": torch.from_numpy(model.coef_[0].astype(np.float64)),
            "bias": torch.from_numpy(model.intercept_.astype(np.float64)),
        }

    def decide(self, numbers: Tensor) -> Tensor:
        scaled = (numbers.double() - self.on("low", numbers)) / self.on("span", numbers)
        return (scaled * self.on("weight", numbers)).sum(1) + self.on("bias", numbers)


class Sum(Rule):
    """The numbers themselves, each standardised on clean images, added up: nothing is learned from attacks.

    Only the boundary is: where attacks are known, the one with the best balanced accuracy on them; where none are,
    the 95th percentile of the clean images.
    """

    name = "sum"

    def fit(self, numbers: Tensor, attacked: Tensor, *, seed: int, scale_on: Tensor | None = None) -> None:  # noqa: ARG002
        clean = numbers[~attacked]
        if not len(clean):
            raise InputError("no clean images to fit the detector on; give some")
        spread = clean.std(0, correction=0)
        self.arrays = {
            "centre": clean.mean(0),
            "spread": torch.where(spread > 0, spread, torch.ones_like(spread)),
            "boundary": torch.zeros(1, dtype=torch.float64),
        }
        scores = self.decide(numbers)
        self.arrays["boundary"] = _boundary(scores, attacked).reshape(1)

    def decide(self, numbers: Tensor) -> Tensor:
        standard = (numbers.double() - self.on("centre", numbers)) / self.on("spread", numbers)
        return standard.sum(1) - self.on("boundary", numbers)


def _range(numbers: Tensor) -> tuple[Tensor, Tensor]:
    low, high = numbers.amin(0), numbers.amax(0)
    return low, torch.where(high > low, high - low, torch.ones_like(low))


def _boundary(scores: Tensor, attacked: Tensor) -> Tensor:
    """Midway between the two neighbouring scores that part clean from attacked best."""
    if not bool(attacked.any()):
        return torch.quantile(scores, 0.95)
    order = scores.argsort(stable=True)
    values, hits = scores[order], attacked[order].double()
    missed = hits.cumsum(0) / hits.sum()  # attacked at or below a score
    passed = (1 - hits).cumsum(0) / (1 - hits).sum()  # clean at or below it
    gain = passed - missed
    gain[:-1][values[:-1] == values[1:]] = -torch.inf  # no boundary runs between equal scores
    best = int(gain.argmax())
    upper = values[min(best + 1, len(values) - 1)]
    return (values[best] + upper) / 2
