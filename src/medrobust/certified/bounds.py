"""What no change within a ball can do to a small network: interval and linear bounds of its logits.

``ibp``: intervals, but for the affine layers at the end (Gowal et al. 2018, arXiv:1810.12715). ``crown-ibp``: one
linear bound from the logits back to the pixels, with intervals for what lies between (Zhang et al. 2020,
arXiv:1906.06316). ``crown``: linear bounds for what lies between too, number by number where the sign is open (Zhang et
al. 2018, arXiv:1811.00866). Each mostly proves more than the one before it does, and takes longer.

An image is proved at eps where its decision is right for every image in [0, 1] within eps of it, as the network
computes in float32 (``layers`` says how rounding is covered). eps is taken with the tolerance of the judge on top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from medrobust.certified.graph import Graph, graph_of
from medrobust.certified.layers import Affine, Bent, Interval
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Labels, PerImage
from medrobust.threat import BALLS
from medrobust.threat.balls import TOLERANCE

Method = Literal["ibp", "crown-ibp", "crown"]
METHODS: tuple[Method, ...] = ("ibp", "crown-ibp", "crown")
"""From the fastest to the strongest."""
WRONG = -1.0
"""Stands as the proved eps of an image that is read wrongly as it is."""
NUMBERS = 2**22
"""Of one tensor of coefficients: what is kept in memory at a time."""
ROUNDS = 6
"""Of the search for the multiplier of an L2 bound; the bound holds with every multiplier."""


@dataclass(frozen=True)
class Region:
    """All images in [0, 1] within eps of one image (1, c, h, w), in a norm."""

    image: Tensor
    norm: str
    eps: float

    @property
    def reach(self) -> float:
        """eps with what the judge tolerates, and the rounding of its size in float32."""
        return self.eps * (1 + 1e-5) + 1.1 * TOLERANCE

    @property
    def box(self) -> Interval:
        """The smallest box around it."""
        return Interval((self.image - self.reach).clamp_min(0), (self.image + self.reach).clamp_max(1))

    def least(self, coefficients: Tensor) -> Tensor:
        """The least of sum(coefficients x image), (s,), for coefficients (s, c, h, w)."""
        a, (low, high) = coefficients.flatten(1), self.box
        down, up = (low - self.image).flatten(1), (high - self.image).flatten(1)
        least = (torch.where(a > 0, down, up) * a).sum(1)
        if self.norm == "l2":
            least = torch.maximum(least, self._within_l2(a, down, up))
        return (a * self.image.flatten(1)).sum(1) + least

    def _within_l2(self, a: Tensor, down: Tensor, up: Tensor) -> Tensor:
        """A lower bound of a x d over ``down`` <= d <= ``up`` and |d| <= eps, by duality: for every m > 0 it is at
        least min over the box of a x d + m (|d|² - eps²)."""
        radius = self.reach
        multiplier = a.norm(dim=1, keepdim=True).clamp_min(1e-30) / (2 * radius)
        best: Tensor = -a.norm(dim=1) * radius
        for _ in range(ROUNDS):
            change = (-a / (2 * multiplier)).clamp(down, up)
            length = change.square().sum(1)
            value = (a * change).sum(1) + multiplier[:, 0] * (length - radius**2)
            best = torch.maximum(best, value)
            multiplier = multiplier * (length.sqrt() / radius).clamp(1e-3, 1e3)[:, None]
        return best


def lower_bound(
    graph: Graph,
    intervals: Sequence[Interval],
    start: int,
    coefficients: Tensor,
    region: Region,
    *,
    affine_only: bool = False,
) -> Tensor:
    """(s,): no image of ``region`` makes sum(coefficients x the numbers at position ``start``) less.

    coefficients: (s, ...). intervals: of one row, of every position before ``start``. affine_only: go back through
    affine layers alone, and take the intervals of what others give.
    """
    waiting = {start: coefficients}
    shift = coefficients.new_zeros(coefficients.shape[0])
    for position in range(start, 0, -1):
        if position not in waiting:
            continue
        places, layer, here = graph.inputs[position - 1], graph.layers[position - 1], waiting.pop(position)
        if affine_only and not isinstance(layer, Affine):
            ends = intervals[position]
            shift = shift + torch.where(here > 0, ends.low, ends.high).mul_(here).flatten(1).sum(1)
            continue
        terms = layer.below(here, [intervals[i] for i in places])
        shift = shift + terms.shift
        for place, there in zip(places, terms.coefficients, strict=True):
            waiting[place] = waiting[place] + there if place in waiting else there
    return shift if 0 not in waiting else shift + region.least(waiting[0])


def intervals_of(graph: Graph, region: Region, method: Method) -> list[Interval]:
    """Bounds of every position. Of ``crown``, those that a bend needs are made narrower by linear bounds."""
    every = [region.box]
    mixed = [0 if region.norm == "linf" else 2]  # of a box, intervals are exact until numbers are mixed a second time
    for layer, places in zip(graph.layers, graph.inputs, strict=True):
        affine = isinstance(layer, Affine) and len(places) == 1
        mixed.append(mixed[places[0]] + layer.mixes if affine else 2)
        if method == "crown" and isinstance(layer, Bent) and mixed[places[0]] > 1:
            every[places[0]] = _narrower(graph, every, places[0], layer, region)
        every.append(layer.interval([every[i] for i in places]))
    return every


def _narrower(graph: Graph, intervals: list[Interval], position: int, layer: Bent, region: Region) -> Interval:
    low, high = (end.flatten().clone() for end in intervals[position])
    open_ = layer.undecided([intervals[position]]).flatten().nonzero()[:, 0]
    shape = graph.shapes[position]
    size = max(1, NUMBERS // max(_numbers(s) for s in graph.shapes[: position + 1]))
    for chosen in open_.split(size):
        units = torch.zeros(len(chosen), low.numel(), dtype=low.dtype)
        units[torch.arange(len(chosen)), chosen] = 1.0
        units = units.view(-1, *shape)
        below = lower_bound(graph, intervals, position, units, region)
        low[chosen] = torch.maximum(low[chosen], below)
        still = chosen[layer.undecided([Interval(low[chosen], high[chosen])])]
        kept = torch.isin(chosen, still)
        if bool(kept.any()):
            above = -lower_bound(graph, intervals, position, -units[kept], region)
            high[still] = torch.minimum(high[still], above)
    return Interval(low.view(1, *shape), high.view(1, *shape))


def _numbers(shape: Sequence[int]) -> int:
    count = 1
    for side in shape:
        count *= side
    return count


def margin(graph: Graph, needed: Tensor, image: Tensor, norm: str, eps: float, method: Method) -> float:
    """A lower bound of the smallest of ``needed`` x logits, (m, k), over the images within eps of one (1, c, h, w)."""
    region = Region(image.double().cpu(), norm, eps)
    intervals = intervals_of(graph, region, method)
    least = lower_bound(graph, intervals, graph.output, needed, region, affine_only=True)
    if method != "ibp":
        least = torch.maximum(least, lower_bound(graph, intervals, graph.output, needed, region))
    return float(least.min())


def proved(
    classifier: Classifier,
    images: Images,
    labels: Labels,
    norm: str,
    eps: Sequence[float],
    method: Method = "crown",
    *,
    advance: Callable[[int], None] | None = None,
) -> PerImage:
    """float64 (n,): the largest eps of the ascending grid at which each image is proved to be read rightly.

    0 where it is read rightly and none is proved, WRONG where it is read wrongly as it is. labels: (n,), or (n, k) of
    several findings, of which unknown ones do not matter. InputError where the network is not covered.
    """
    if norm not in BALLS or method not in METHODS:
        raise InputError(f"bounds are for {' and '.join(BALLS)} by {', '.join(METHODS)}; got {norm!r} by {method!r}")
    labels = classifier.head.check_labels(labels, len(classifier.classes))
    graph = graph_of(classifier, images)
    right = (~classifier.head.wrong(classifier.logits(images), labels.to(images.device))).cpu()
    grid = [e for e in eps if e > 0]
    out = torch.full((len(images),), WRONG, dtype=torch.float64)
    for i in range(len(images)):
        if bool(right[i]):
            needed = classifier.head.needed(labels[i : i + 1].cpu(), len(classifier.classes))[0].double()
            largest = _largest(graph, needed, images[i : i + 1], norm, grid, method)
            out[i] = 0.0 if largest < 0 else grid[largest]
        if advance is not None:
            advance(1)
    return out


def _largest(graph: Graph, needed: Tensor, image: Tensor, norm: str, grid: Sequence[float], method: Method) -> int:
    """Position of the largest eps that is proved, -1 for none: the fastest method first, each begins where the one
    before it ended. What is proved at an eps is proved at all smaller ones."""
    low, top = -1, len(grid) - 1
    for each in METHODS[: METHODS.index(method) + 1]:
        below, above = low, top + 1
        while above - below > 1:
            middle = (below + above) // 2
            if margin(graph, needed, image, norm, grid[middle], each) > 0:
                below = middle
            else:
                above = middle
        low = below
    return low
