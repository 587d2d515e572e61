"""Which layers of a network still know where in the image they are, found by running it once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.layer_probe import hint, probed_layouts, readable
from medrobust.layout import Layout, tensor_of

COARSE = 4
"""A map of fewer positions a side has no place worth the name; such layers are taken only where there are no others."""


class Layer(NamedTuple):
    """A module whose output has a map (channels, height, width) of an image."""

    name: str
    channels: int
    height: int
    width: int
    block: bool
    """Its output is a step of the network and not a part of one: it holds at least two convolutions, or three layers
    with weights (a block of attention has four, its branches two each)."""
    tokens: bool
    """Its positions lie on one axis."""


def spatial_layers(classifier: Classifier, shape: Sequence[int]) -> list[Layer]:
    """The layers with a map of their own, in the order in which they finish, for images (n, c, h, w).

    Which axes are positions is found by ``layer_probe.probe``. A layer whose positions have no way to the decision (the
    last tokens behind a class token) is left out. InputError where there is none (a network without convolutions).
    """
    modules = {name: module for name, module in readable(classifier).items() if name}
    layouts = probed_layouts(classifier, shape, tuple(modules))
    reach, sizes = _reach(classifier, shape, layouts)
    layers = []
    for name in layouts:
        grid = layouts[name].grid
        if grid is None or name not in reach or min(grid) < 2:
            continue
        inside = [m for m in modules[name].modules() if isinstance(m, nn.Conv2d | nn.Linear)]
        block = sum(isinstance(m, nn.Conv2d) for m in inside) > 1 or len(inside) > 2
        layers.append(Layer(name, sizes[name], *grid, block, len(layouts[name].positions) == 1))
    if not layers:
        raise InputError(
            f"this network has no layer that gives a map (c, h, w): it has no place to look at{hint(classifier)}"
        )
    return layers


def _reach(
    classifier: Classifier, shape: Sequence[int], layouts: Mapping[str, Layout]
) -> tuple[set[str], dict[str, int]]:
    """The layers with a map of which some position moves the logits, and the channels of each; all of them where the
    network gives no gradient."""
    image = torch.rand((1, *shape[1:]), generator=torch.Generator().manual_seed(1)).to(classifier.device)
    answers: dict[str, Tensor] = {}

    def after(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def keep(_: nn.Module, __: Any, output: Any) -> Any:
            answers[name] = tensor_of(output, name)
            given = answers[name].clone()  # the next layer may work in place
            return given if isinstance(output, Tensor) else type(output)((given, *output[1:]))

        return keep

    named = [name for name, layout in layouts.items() if layout.grid is not None]
    modules = readable(classifier)
    hooks = [modules[name].register_forward_hook(after(name)) for name in named]
    try:
        with torch.enable_grad():
            logits = classifier(image.requires_grad_())
    finally:
        for hook in hooks:
            hook.remove()
    sizes = {name: layouts[name].maps(answer.detach()).shape[1] for name, answer in answers.items()}
    wanted = {name: answer for name, answer in answers.items() if answer.requires_grad}
    if not logits.requires_grad or not wanted:
        return set(answers), sizes
    pull = torch.linspace(1, 2, logits.numel(), device=logits.device).view_as(logits)
    slopes = torch.autograd.grad(logits, tuple(wanted.values()), pull, allow_unused=True)
    live = {
        name
        for name, slope in zip(wanted, slopes, strict=True)
        if slope is not None and bool(layouts[name].maps(slope).any())
    }
    return live or set(answers), sizes


def last_spatial(classifier: Classifier, shape: Sequence[int]) -> str:
    """The last layer with a map of at least 4 x 4 positions: where Grad-CAM looks unless told otherwise.

    Of tokens the last one as wide as most: parts of attention (queries, keys and values) are not the stream itself.
    """
    layers = _fine(spatial_layers(classifier, shape))
    widths = Counter(
        layer.channels for layer in layers if layer.tokens and (layer.height, layer.width) == layers[-1][2:4]
    )
    usual = widths.most_common(1)[0][0] if widths else 0
    return next(layer for layer in reversed(layers) if not layer.tokens or layer.channels == usual).name


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
