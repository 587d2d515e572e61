"""Differentiable surrogates of detectors that have no useful gradient (Tramer et al. 2020, arXiv:2002.08347).

Kernel density, Mahalanobis, LID and logistic rules are differentiable as they are. The others get a smooth surrogate:
trees whose branches are taken in part, a quantiser that is a step forwards and a sigmoid backwards (BPDA, Athalye et
al. 2018, arXiv:1802.00420), support vectors on a logarithmic scale. A surrogate shows the way only: what it reaches
is scored by the real detector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

from medrobust.detectors import Detector, MaxSoftmax, QuantisedFeatures
from medrobust.detectors.distances import squared
from medrobust.detectors.features import LOGITS, LayerFeatures
from medrobust.detectors.forest import Forest
from medrobust.detectors.support_vectors import SupportVectors
from medrobust.images import PerImage

Surrogate: TypeAlias = Callable[[LayerFeatures, Tensor], PerImage]
"""(features with their graph, class aimed at (n,)) to float64 (n,): higher is more suspicious."""

SOFTNESS = 0.5
"""Width of a soft branch, as a share of how far a feature's thresholds lie from each other in a forest."""
STEEPNESS = 0.2
"""Width of a soft quantiser, as a share of the mean it compares with."""


def surrogate(detector: Detector) -> Surrogate:
    """A differentiable score for ``detector``, exact where it has one itself.

    It is asked about the class that is aimed at, not the one decided on now: an image that is still classified right
    is thus drawn towards the wrong class.
    """
    represent = next((r for kind, r in REPRESENT if isinstance(detector, kind)), _as_it_is)
    assert detector.rule_ is not None
    decide = next((d for kind, d in DECIDE if isinstance(detector.rule_, kind)), None)

    def score(table: LayerFeatures, aimed: Tensor) -> PerImage:
        numbers = represent(detector, table, aimed)
        return detector.rule_.decide(numbers) if decide is None else decide(detector.rule_, numbers)  # type: ignore[union-attr]

    return score


def _as_it_is(detector: Detector, table: LayerFeatures, aimed: Tensor) -> Tensor:
    return detector.represent(table, aimed)


def aimed_confidence(detector: Detector, table: LayerFeatures, aimed: Tensor) -> Tensor:  # noqa: ARG001
    """log(1 - softmax of the class aimed at); the detector's own number where that class leads."""
    logits = table[LOGITS].double()
    others = logits.scatter(1, aimed[:, None], -torch.inf)
    return (others.logsumexp(1) - logits.logsumexp(1))[:, None]


def soft_quantiser(detector: Detector, table: LayerFeatures, aimed: Tensor) -> Tensor:  # noqa: ARG001
    """0 and 1 forwards, the slope of a sigmoid backwards."""
    x = table[detector.layer].double()
    mean = detector.on("mean", x)
    soft = ((x - mean) / _width(mean)).sigmoid()
    return (x > mean).to(x.dtype) + soft - soft.detach()


def soft_forest(rule: Forest, numbers: Tensor) -> PerImage:
    """Each branch is taken in part: by a sigmoid of how far the feature lies from the node's threshold."""
    x = numbers.double()
    left, right, feature = (rule.on(name, x) for name in ("left", "right", "feature"))
    threshold, vote, root = rule.on("threshold", x), rule.on("vote", x), rule.on("root", x)
    inner = (left != right).nonzero()[:, 0]
    goes_left = ((threshold - x[:, feature])[:, inner] / _spread(threshold[inner], feature[inner])).sigmoid()
    at = torch.zeros(len(x), len(left), dtype=x.dtype, device=x.device).index_fill(1, root, 1.0)
    total = torch.zeros_like(at)  # leaves keep what has come to them
    for _ in range(int(rule.arrays["depth"]) + 1):
        total = total + at
        here = at[:, inner]
        at = torch.zeros_like(at).index_add(1, left[inner], here * goes_left)
        at = at.index_add(1, right[inner], here * (1 - goes_left))
    leaf = left == right
    return (total[:, leaf] * vote[leaf]).sum(1) / len(root) - 0.5


def log_ratio(rule: SupportVectors, numbers: Tensor) -> PerImage:
    """Logarithm of the attacked side's kernels over the clean side's: the kernels themselves underflow to 0."""
    x = numbers.double()
    weight = rule.on("weight", x)
    far = squared(x, rule.on("vectors", x), rule.on("centre", x)) * rule.on("gamma", x)
    mass = weight.abs().log() - far
    return mass[:, weight > 0].logsumexp(1) - mass[:, weight < 0].logsumexp(1)


def _width(mean: Tensor) -> Tensor:
    size = mean.abs()
    return STEEPNESS * torch.maximum(size, size.median()).clamp_min(1e-6)


def _spread(threshold: Tensor, feature: Tensor) -> Tensor:
    """(nodes,): how soft each branch is, from the spread of its feature's thresholds over the forest.

    A feature that is asked once, or always at the same place, takes the median of the others.
    """
    _, index, count = feature.unique(return_inverse=True, return_counts=True)
    mean = (
        torch.zeros(len(count), dtype=threshold.dtype, device=threshold.device).index_add(0, index, threshold) / count
    )
    off = (threshold - mean[index]) ** 2
    spread = (torch.zeros_like(mean).index_add(0, index, off) / count).sqrt()
    positive = spread[spread > 0]
    usual = positive.median() if len(positive) else threshold.abs().mean().clamp_min(1e-6)
    return SOFTNESS * torch.maximum(spread, usual)[index]


REPRESENT: tuple[tuple[type[Detector], Callable[[Any, LayerFeatures, Tensor], Tensor]], ...] = (
    (MaxSoftmax, aimed_confidence),
    (QuantisedFeatures, soft_quantiser),
)
DECIDE: tuple[tuple[type[Any], Callable[[Any, Tensor], PerImage]], ...] = (
    (Forest, soft_forest),
    (SupportVectors, log_ratio),
)
