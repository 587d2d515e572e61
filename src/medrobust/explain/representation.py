"""How simple what a layer sees is: the map of channel means that Ma et al. 2020 show, and three numbers an image.

Effective rank: Roy & Vetterli 2007 (EUSIPCO). Every number is small for what is simple.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medrobust.classifier import Classifier
from medrobust.detectors.features import Features
from medrobust.images import Images, PerImage, check_images


def channel_means(activations: Tensor) -> Tensor:
    """(n, c, h, w) to (n, h, w): the mean over channels, as published."""
    return activations.mean(1)


def effective_rank(matrices: Tensor) -> PerImage:
    """float64 (n,) of matrices (n, rows, columns): exp of the entropy of their singular values over their sum.

    1 for rank one, the size for an identity matrix; NaN for zeros.
    """
    values = torch.linalg.svdvals(matrices.double())
    return torch.where(values[:, 0] > 0, _entropy(values).exp(), torch.nan)


def spectral_entropy(maps: Tensor) -> PerImage:
    """float64 (n,) in [0, 1]: entropy of the power over spatial frequencies of maps (n, h, w) without their mean, over
    its largest value. 0 for a single plane wave up to its mirror image, 1 for all frequencies alike; NaN for flat."""
    maps = maps.double() - maps.double().mean((1, 2), keepdim=True)
    power = torch.fft.fft2(maps).abs().square().flatten(1)[:, 1:]
    # a wave and its mirror image hold the same power: that is one frequency
    count = power.shape[1]
    entropy = (_entropy(power) - math.log(2)).clamp_min(0) / (math.log(count) - math.log(2))
    return torch.where(power.sum(1) > 1e-20 * count, entropy.clamp_max(1), torch.nan)


def spatial_entropy(maps: Tensor) -> PerImage:
    """float64 (n,) in [0, 1]: entropy of where the absolute value of maps (n, h, w) lies, over that of a flat map."""
    mass = maps.double().abs().flatten(1)
    return torch.where(mass.sum(1) > 0, _entropy(mass) / math.log(mass.shape[1]), torch.nan)


def simplicity(classifier: Classifier, images: Images, layers: Sequence[str]) -> dict[str, dict[str, PerImage]]:
    """layer -> {"effective-rank", "relative-rank", "spectral-entropy", "spatial-entropy"}, each float64 (n,).

    The rank is that of the channels x positions matrix; the relative one is over the largest it could have.
    InputError for a layer that the network does not have (with those it has) or that has no positions.
    """
    features = Features(classifier, layers, maps=True)
    parts: dict[str, list[dict[str, PerImage]]] = {name: [] for name in features.layers}
    for table in features.stream(check_images(images)):
        for name in parts:
            parts[name].append(_of_layer(table[name]))
    return {name: {key: torch.cat([p[key] for p in some]) for key in some[0]} for name, some in parts.items()}


def layer_maps(classifier: Classifier, images: Images, layer: str) -> Tensor:
    """float32 (n, h, w): channel means of one layer."""
    stream = Features(classifier, (layer,), maps=True).stream(check_images(images))
    return torch.cat([channel_means(table[layer]) for table in stream])


def _of_layer(values: Tensor) -> dict[str, PerImage]:
    maps, rows = channel_means(values), values.flatten(2)
    # one image at a time, so that the kernels, and with them the last bits, do not depend on how many there are
    rank = torch.cat([effective_rank(row[None]) for row in rows])
    return {
        "effective-rank": rank,
        "relative-rank": rank / min(rows.shape[1:]),
        "spectral-entropy": torch.cat([spectral_entropy(m[None]) for m in maps]),
        "spatial-entropy": torch.cat([spatial_entropy(m[None]) for m in maps]),
    }


def _entropy(mass: Tensor) -> PerImage:
    """In nats, of rows (n, d) >= 0 over their sums."""
    share = mass / mass.sum(1, keepdim=True).clamp_min(1e-300)
    return -torch.xlogy(share, share).sum(1)
