"""The result of every method: features reduced, then one linear layer or two with tanh between; and as a classifier."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import expit, softmax
from torch import nn

from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.models import mlp_head
from medrobust.training.evolved.mlp import Layers
from medrobust.training.evolved.reduction import Reduction

Layer = tuple[np.ndarray, np.ndarray]
"""float64 (out, in) and (out,), as torch.nn.Linear has them."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A network on features. layers: one (a linear classifier) or two (an MLP); one output for two classes."""

    reduction: Reduction
    layers: Sequence[Layer]

    @classmethod
    def mlp(cls, reduction: Reduction, layers: Layers) -> Fitted:
        """From one network's layers (no leading axes); inputs beyond the reduction's, which are padding, fall away."""
        w1, b1, w2, b2 = (w.detach().double().cpu().numpy() for w in layers)
        return cls(reduction, [(w1[:, : len(reduction.offset)], b1), (w2, b2)])

    @classmethod
    def linear(cls, reduction: Reduction, model: Any) -> Fitted:
        """From a scikit-learn LogisticRegression."""
        return cls(reduction, [(model.coef_, model.intercept_)])

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Fitted:
        """From what ``arrays`` gave."""
        count = sum(name.startswith("weight") for name in arrays)
        layers = [(arrays[f"weight{i}"], arrays[f"bias{i}"]) for i in range(count)]
        return cls(Reduction(arrays["matrix"], arrays["offset"]), layers)

    def arrays(self) -> dict[str, np.ndarray]:
        """All numbers of the network, by name, float64."""
        named = {"matrix": self.reduction.matrix, "offset": self.reduction.offset}
        for i, (weight, bias) in enumerate(self.layers):
            named |= {f"weight{i}": weight, f"bias{i}": bias}
        return {name: np.ascontiguousarray(value) for name, value in named.items()}

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, outputs) of features (n, d)."""
        x = self.reduction(features)
        for weight, bias in self.layers[:-1]:
            x = np.tanh(x @ weight.T + bias)
        weight, bias = self.layers[-1]
        return np.asarray(x @ weight.T + bias)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """float64 (n, classes) of features (n, d)."""
        z = self.logits(features)
        if z.shape[1] > 1:
            return np.asarray(softmax(z, 1))
        return np.concatenate([expit(-z), expit(z)], 1)

    def as_classifier(
        self, source: Classifier, provenance: Mapping[str, Any] | None = None, classes: Sequence[str] | None = None
    ) -> Classifier:
        """In place of the last layer of ``source``, whose penultimate features it was fitted to.

        classes: of the table that it was fitted to; those of ``source`` when not given.

        A Classifier like any other: attacked through the features, saved and loaded by its architecture's name. The
        reduction becomes part of the first layer, so answers are the same up to float32 rounding.
        """
        body, was = mlp_head.split_name(str(source.provenance.get("architecture")))
        if was is not None:
            raise InputError("this network ends in an MLP already; give the network that it was made from")
        (first, bias), *rest = self.layers
        layers = [(first @ self.reduction.matrix, first @ self.reduction.offset + bias), *rest]
        net = copy.deepcopy(source.net)
        name, old = mlp_head.last_linear(net)
        if old.in_features != layers[0][0].shape[1]:
            raise InputError(
                f"fitted to {layers[0][0].shape[1]} features, the network's last layer takes {old.in_features}"
            )
        outputs = len(layers[-1][1])
        parent, _, own = name.rpartition(".")
        setattr(net.get_submodule(parent), own, nn.Linear(old.in_features, outputs))
        hidden = len(layers[0][1]) if len(layers) == 2 else None
        if hidden is not None:
            mlp_head.put(net, hidden)
        linear = [m for m in net.get_submodule(name).modules() if isinstance(m, nn.Linear)]
        with torch.no_grad():
            for module, (weight, bias) in zip(linear, layers, strict=True):
                module.weight.copy_(torch.from_numpy(weight))
                module.bias.copy_(torch.from_numpy(bias))
        net.requires_grad_(True).to(old.weight)
        return Classifier(
            net.eval(),
            classes or source.classes,
            mean=source.mean,
            std=source.std,
            channels=source.channels,
            size=source.size,
            head="logit" if outputs == 1 else "softmax",
            outputs="logits",
            provenance={**(provenance or {}), "architecture": mlp_head.named(body, hidden)},
        )
