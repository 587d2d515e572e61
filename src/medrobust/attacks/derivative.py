"""Is the gradient that attacks follow the network's own? Backpropagation against finite differences.

Masked gradients make attacks fail, not networks robust (Athalye et al. 2018, arXiv:1802.00420). Changes of the size
that attacks make (one and two grey levels) along random directions, smooth and rough, must change the output as the
gradient predicts. Smaller changes would not do: within one step of a stair every network is flat.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medrobust import seeds
from medrobust.attacks.attack import slope
from medrobust.attacks.lowfreq import LowFrequency
from medrobust.classifier import Classifier
from medrobust.images import Images, PerImage
from medrobust.seeds import Id
from medrobust.threat import Untargeted, margin

SIZES = (1 / 255, 2 / 255)
"""Root mean square of the changes: fractions of the pixel range."""
DIRECTIONS = 6
"""Smooth ones, and as many rough ones."""
FREQUENCIES = 8
"""Cosines along a side that smooth directions are made of."""
AGREE = 0.5
"""Least cosine of a gradient that is believed. docs/results.md lists what honest and masked networks reach."""
LINEAR_TERM = 1e-5
"""Slope of the linear term that hides the gradient of a copy, relative to the size of its outputs."""


class Derivative(NamedTuple):
    """How well the gradient predicts the output's changes. NaN where no image could be compared."""

    cosine: float
    """Between predicted and true changes: mean over the images, of smooth or rough directions, whichever is higher."""
    range_needed: float
    """By how much of the pixel range every pixel must change to turn the decision, were the gradient the same
    everywhere: median over the images. Above 1 no change at all would do, and yet images with other decisions exist.
    """
    compared: int
    """Images whose output changed."""

    @property
    def holds(self) -> bool | None:
        """None: no image could be compared."""
        if not self.compared:
            return None
        return self.cosine >= AGREE and not self.range_needed > 1


def derivative(classifier: Classifier, images: Images, *, seed: int = 0, ids: Sequence[Id] | None = None) -> Derivative:
    """Compare the gradient of the margin with central differences on images (n, c, h, w).

    Takes one gradient and 48 further passes an image.
    """
    names: list[Id] = list(range(len(images))) if ids is None else list(ids)
    decided, gap, pull, gradient = _linearised(classifier, images)
    predicted, true = _changes(classifier, images, pull, gradient, seed, names)
    usable = torch.isfinite(true).all((0, 1, 3)) & torch.isfinite(gradient.flatten(1)).all(1)
    # rounding alone changes an output by this much; what changes less does not change
    usable &= (true.abs() > 1e-7 * gap.abs()[:, None]).flatten(0, 1).any((0, 2)) & (gap > 0)
    count = int(usable.sum())
    if not count:
        return Derivative(math.nan, math.nan, 0)
    scale = (predicted.norm(dim=3) * true.norm(dim=3)).clamp_min(1e-300)
    cosine = ((predicted * true).sum(3) / scale)[:, :, usable].mean((0, 2))
    needed = gap / gradient.flatten(1).abs().sum(1).clamp_min(1e-300)
    several = len(torch.unique(decided, dim=0)) > 1
    return Derivative(float(cosine.max()), float(needed[usable].median()) if several else math.nan, count)


def _linearised(classifier: Classifier, images: Images) -> tuple[Tensor, PerImage, Tensor, Tensor]:
    """Decisions, their margins (n,), the weights of the logits in them (n, k), their gradients (n, c, h, w)."""
    logits = classifier.logits(images).double().requires_grad_()
    decided = classifier.head.decide(logits.detach())
    with torch.enable_grad():
        gap = classifier.head.gap(logits, decided)
        (pull,) = torch.autograd.grad(gap.sum(), logits)
    goal, lanes, parts = Untargeted(decided), classifier.lanes(images.shape), []
    for rows in torch.arange(len(images)).split(lanes):
        part = images[rows].to(classifier.device)
        found = slope(classifier, part, goal.take(rows).prepare(classifier.head, len(classifier.classes), len(rows),
                      part.device), margin)  # fmt: skip
        # attacks ascend minus the margin, and know its gradient up to a factor
        parts.append(-(found.gradient.double() * found.scale.double().view(-1, 1, 1, 1)).to(images.device))
    return decided, gap.detach(), pull.detach(), torch.cat(parts)


def _changes(
    classifier: Classifier, images: Images, pull: Tensor, gradient: Tensor, seed: int, ids: list[Id]
) -> tuple[Tensor, Tensor]:
    """Predicted and true changes of the margin, float64 (sizes, kinds, n, directions), between two legal images."""
    shape = images.shape[1:]
    predicted = torch.zeros(len(SIZES), 2, len(images), DIRECTIONS, dtype=torch.float64)
    true = torch.zeros_like(predicted)
    for kind in range(2):
        for k in range(DIRECTIONS):
            direction = _direction(shape, ("smooth", "rough")[kind], k, seed, ids).to(images.device)
            up = [(images + size * direction).clamp(0, 1) for size in SIZES]
            down = [(images - size * direction).clamp(0, 1) for size in SIZES]
            ends = classifier.logits(torch.cat([*up, *down])).double() * pull.repeat(2 * len(SIZES), 1)
            value = ends.sum(1).view(2, len(SIZES), len(images))
            true[:, kind, :, k] = (value[0] - value[1]).cpu()
            for i, (a, b) in enumerate(zip(up, down, strict=True)):
                predicted[i, kind, :, k] = (gradient * (a.double() - b.double())).flatten(1).sum(1).cpu()
    return predicted, true


def _direction(shape: Sequence[int], kind: str, k: int, seed: int, ids: list[Id]) -> Images:
    """A random pattern for each id, root mean square 1."""
    if kind == "rough":
        drawn = seeds.normal(seed, f"derivative/rough/{k}", ids, shape)
    else:
        low = LowFrequency(shape, FREQUENCIES)
        drawn = low.patterns(seeds.normal(seed, f"derivative/smooth/{k}", ids, low.shape))
    size = drawn.flatten(1).square().mean(1).sqrt().clamp_min(1e-30)
    return drawn / size.view(-1, 1, 1, 1)


# -- copies that hide their gradient, to test the comparison ---------------------------------------------------


class _Detached(nn.Module):
    """Answers like the network, up to a small linear term; the gradient is that of the term."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images.detach())
        flat = out.flatten(1)
        slopes = torch.linspace(-1, 1, flat.shape[1] + 1, device=out.device, dtype=out.dtype)[1:]
        term = images.flatten(1).sum(1, keepdim=True).to(out.dtype) * slopes
        return out + LINEAR_TERM * flat.detach().abs().mean() * term.view_as(out)


class _Turned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:  # noqa: ARG004
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        return -gradients[0]


class _Negated(nn.Module):
    """Answers as the network does; the gradient has the other sign."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(_Turned.apply(images))
        return out


def hidden(classifier: Classifier) -> dict[str, Classifier]:
    """Classifiers that answer as this one and hide their gradient, by how: "detached", "negated"."""
    copies = {}
    for name, wrap in (("detached", _Detached), ("negated", _Negated)):
        other = copies[name] = copy.copy(classifier)
        other.net, other._exact, other._fast = wrap(classifier.plain_net), {}, None
        if other.inspection is not None:
            other.inspection = other.inspection.of_plain()
    return copies
