"""Which layers of a network still know where in the image they are, found by running it once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medrobust.classifier import Classifier
from medrobust.errors import InputError

COARSE = 4
"""A map of fewer positions a side has no place worth the name; such layers are taken only where there are no others."""


class Layer(NamedTuple):
    """A module that gives (n, channels, height, width)."""

    name: str
    channels: int
    height: int
    width: int
    block: bool
    """It holds at least two convolutions, so that its output is a step of the network and not a part of one."""


def spatial_layers(classifier: Classifier, shape: Sequence[int]) -> list[Layer]:
    """The layers with a map of their own, in the order in which they finish, for images (n, c, h, w).

    InputError where there is none (a network without convolutions).
    """
    seen: dict[str, Layer] = {}

    def after(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def keep(module: nn.Module, _: Any, out: Any) -> None:
            if isinstance(out, Tensor) and out.ndim == 4 and out.shape[2] > 1 and out.shape[3] > 1:
                convolutions = sum(isinstance(m, nn.Conv2d) for m in module.modules())
                seen.pop(name, None)
                seen[name] = Layer(name, out.shape[1], out.shape[2], out.shape[3], convolutions > 1)

        return keep

    hooks = [m.register_forward_hook(after(name)) for name, m in classifier.net.named_modules() if name]
    try:
        with torch.no_grad():
            classifier(torch.full((1, *shape[1:]), 0.5, device=classifier.device))
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise InputError("this network has no layer that gives a map (n, c, h, w): it has no place to look at")
    return list(seen.values())


def last_spatial(classifier: Classifier, shape: Sequence[int]) -> str:
    """The last layer with a map of at least 4 x 4 positions: where Grad-CAM looks unless told otherwise."""
    return _fine(spatial_layers(classifier, shape))[-1].name


def middle(classifier: Classifier, shape: Sequence[int]) -> str:
    """The first block at an eighth of the image's side, which in a ResNet-50 is what Ma et al. 2020 show (res3a);
    where there is none, the first block of the middle one of the resolutions."""
    blocks = _blocks(_fine(spatial_layers(classifier, shape)))
    sides = list(dict.fromkeys(b.height for b in blocks))
    eighth = -(-shape[-2] // 8)
    side = eighth if eighth in sides else sides[len(sides) // 2]
    return next(b for b in blocks if b.height == side).name


def stages(classifier: Classifier, shape: Sequence[int]) -> tuple[str, ...]:
    """The last block of every resolution, or its last layer where it has no block, from the pixels to the decision."""
    last: dict[tuple[int, int], Layer] = {}
    for layer in _fine(spatial_layers(classifier, shape)):
        before = last.get((layer.height, layer.width))
        if before is None or layer.block or not before.block:
            last[layer.height, layer.width] = layer
    return tuple(layer.name for layer in last.values())


def _fine(layers: list[Layer]) -> list[Layer]:
    return [layer for layer in layers if min(layer.height, layer.width) >= COARSE] or layers


def _blocks(layers: list[Layer]) -> list[Layer]:
    return [layer for layer in layers if layer.block] or layers
