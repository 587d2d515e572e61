"""Is the gradient that attacks follow the network's own? Backpropagation against finite differences.

Masked gradients make attacks fail, not networks robust (Athalye et al. 2018, arXiv:1802.00420). Changes of the size
that attacks make (one and two grey levels) along random directions, smooth and rough, must change the output as the
gradient predicts. Smaller changes would not do: within one step of a stair every network is flat.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
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
"""Root mean square of the changes, in turn: fractions of the pixel range."""
DIRECTIONS = 6
"""Smooth ones, and as many rough ones, for each image."""
FREQUENCIES = 8
"""Cosines along a side that smooth directions are made of."""
AGREE = 0.65
"""Smallest cosine at which a gradient is trusted: midway between unmasked networks (from 0.91) and what masked
ones do whose gradient is not simply wrong (up to 0.45). docs/results/gradients.md lists both."""
SURE = 3.0
"""Standard errors by which a cosine must be clear of AGREE before further images are left out."""
CLEAR = 10.0
"""Factor by which the range needed must be clear of 1 for the same."""
STEEP, STEPS = 10.0, 10
"""Times the size that a gradient says turns a decision: where that is below a grey level, so many steps within it are
tried."""
LEADS = 2 / 3
"""Share of decisions turned by them from which the gradient leads where it says, whatever larger changes do."""
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
    examined: int
    """Number of images examined."""
    flat: bool = False
    """The outputs of most images did not change, though different images have different ones: such an answer moves in
    steps, and gradients are not informative there."""
    turned: float = math.nan
    """Of a network so steep that changes of a grey level are far beyond its linear range: the share of images whose
    decision is turned by steps along the gradient, and not by random ones, within ``STEEP`` times the size that it says
    is needed. NaN: not asked."""

    @property
    def holds(self) -> bool | None:
        """None: no image could be compared, and the outputs are the same for all of them."""
        if self.flat:
            return False
        if not self.compared:
            return None
        return (self.cosine >= AGREE and not self.range_needed > 1) or self.turned >= LEADS

    @property
    def clear(self) -> bool:
        """Further images would very likely not change ``holds``."""
        if self.compared < 2 or 2 * self.compared < self.examined:
            return False
        if self.range_needed > CLEAR:
            return True
        # Fisher's z: its standard error is known, so that a few images that agree by chance do not seem sure
        distance = math.atanh(max(-1 + 1e-9, min(self.cosine, 1 - 1e-9))) - math.atanh(AGREE)
        far = abs(distance) > SURE / math.sqrt(self.compared * DIRECTIONS - 3)
        return far and (distance < 0 or self.range_needed < 1 / CLEAR)


class Ends:
    """Logits at both ends of every change, computed where they are asked for and kept: copies that answer alike need
    not answer again."""

    def __init__(self, classifier: Classifier, images: Images, seed: int, ids: list[Id]) -> None:
        self.classifier, self.images, self.seed, self.ids = classifier, images, seed, ids
        self.lines: dict[int, Tensor] = {}

    def changes(self, rows: Sequence[int]) -> Iterator[tuple[int, int, Images, Images]]:
        """(kind, number, up, down) of every direction: two legal images (n, c, h, w) on either side of each image."""
        images, ids = self.images[list(rows)], [self.ids[i] for i in rows]
        for kind in range(2):
            for k in range(DIRECTIONS):
                direction = _direction(images.shape[1:], ("smooth", "rough")[kind], k, self.seed, ids)
                step = SIZES[k % len(SIZES)] * direction.to(images.device)
                yield kind, k, (images + step).clamp(0, 1), (images - step).clamp(0, 1)

    def logits(self, rows: Sequence[int]) -> Tensor:
        """float64 (2 ends, 2 kinds, directions, n, k)."""
        new = [i for i in rows if i not in self.lines]
        if new:
            n = len(new)
            pairs_per_pass = max(1, self.classifier.batch_size(self.images.shape) // (2 * n))
            pairs = ((up, down) for _, _, up, down in self.changes(new))
            answers = []
            while several := list(itertools.islice(pairs, pairs_per_pass)):
                answers += self.classifier.logits(torch.cat([end for pair in several for end in pair])).split(n)
            ends = torch.stack(answers).double().unflatten(0, (2, DIRECTIONS, 2)).permute(2, 0, 1, 3, 4)
            self.lines |= {i: ends[:, :, :, j] for j, i in enumerate(new)}
        return torch.stack([self.lines[i] for i in rows], 3)


class _Part(NamedTuple):
    """The comparison on some images: cosine (2 kinds, n), the rest (n)."""

    cosine: Tensor
    needed: Tensor
    usable: Tensor


def derivative(
    classifier: Classifier, images: Images, *, seed: int = 0, ids: Sequence[Id] | None = None, ends: Ends | None = None
) -> Derivative:
    """Compare the gradient of the margin with central differences on images (n, c, h, w), a few at a time.

    Ends as soon as further images would not change the verdict (``Derivative.clear``). Takes one gradient and 24
    further passes for each image examined. ends: of the same images and a classifier that answers as this one.
    """
    names: list[Id] = list(range(len(images))) if ids is None else list(ids)
    ends = ends or Ends(classifier, images, seed, names)
    result = _differences(classifier, images, ends)
    if result.holds is False and STEEP * result.range_needed <= SIZES[0]:
        result = result._replace(turned=_turned(classifier, images[: result.examined]))
    return result


def _turned(classifier: Classifier, images: Images) -> float:
    """The share of decisions that steps along the gradient turn and random steps of their size do not."""
    tangent = _Tangent.of(classifier, images)
    needed = tangent.gap / tangent.gradient.flatten(1).abs().sum(1).clamp_min(1e-300)
    size = (STEEP * needed).clamp(max=SIZES[0]).view(-1, 1, 1, 1).to(images)

    def turned(changed: Images) -> Tensor:
        return (classifier.predict(changed) != tangent.decided).reshape(len(images), -1).any(1)

    moved, led, by_chance = images, *torch.zeros(2, len(images), dtype=torch.bool, device=images.device)
    for number in range(STEPS):
        here = _Tangent.of(classifier, moved)
        step = (size / 4) * here.gradient.sign().to(images)  # of the margin of what is decided there
        moved = torch.where(led.view(-1, 1, 1, 1), moved, moved - step)
        moved = (images + (moved - images).clamp(-size, size)).clamp(0, 1)
        led = led | turned(moved)
        signs = seeds.signs(0, f"gradient check/steps/{number}", range(len(images)), images.shape[1:]).to(images)
        by_chance = by_chance | turned((images + size * signs).clamp(0, 1))
    return float((led & ~by_chance).float().mean())


def _differences(classifier: Classifier, images: Images, ends: Ends) -> Derivative:
    batch_size = classifier.batch_size(images.shape)
    step = max(2, batch_size // 4)
    block = step * max(1, batch_size // step)  # gradients of a full batch cost as much as those of a few images
    parts: list[_Part] = []
    answers: list[_Tangent] = []
    result = Derivative(math.nan, math.nan, 0, 0)
    for begin in range(0, len(images), block):
        answers.append(tangent := _Tangent.of(classifier, images[begin : begin + block]))
        for first in range(0, len(tangent.gap), step):
            parts.append(_compared(tangent.take(slice(first, first + step)), ends, begin + first))
            result = _summary(parts, answers)
            if result.clear:
                return result
    return result


class _Tangent(NamedTuple):
    """The margin of the decision and its derivative. pull (n, k): weights of the logits in the margin."""

    decided: Tensor
    logits: Tensor
    gap: PerImage
    pull: Tensor
    gradient: Tensor

    def take(self, rows: slice) -> _Tangent:
        return _Tangent(*(value[rows] for value in self))

    @classmethod
    def of(cls, classifier: Classifier, images: Images) -> _Tangent:
        logits = classifier.logits(images).double().requires_grad_()
        decided = classifier.head.decide(logits.detach())
        with torch.enable_grad():
            gap = classifier.head.gap(logits, decided)
            (pull,) = torch.autograd.grad(gap.sum(), logits)
        goal, parts = Untargeted(decided), []
        for rows in torch.arange(len(images)).split(classifier.batch_size(images.shape)):
            part = images[rows].to(classifier.device)
            wanted = goal.take(rows).prepare(classifier.head, len(classifier.classes), len(rows), part.device)
            output = slope(classifier, part, wanted, margin)
            # attacks ascend minus the margin, and know its gradient up to a factor
            parts.append(-(output.gradient.double() * output.scale.double().view(-1, 1, 1, 1)).to(images.device))
        return cls(decided, logits.detach(), gap.detach(), pull.detach(), torch.cat(parts))


def _compared(tangent: _Tangent, ends: Ends, first: int) -> _Part:
    """Predicted and true changes of the margin, each over its size."""
    n, gap = len(tangent.gap), tangent.gap
    rows = range(first, first + n)
    predicted = torch.zeros(2, DIRECTIONS, n, dtype=torch.float64)
    for kind, k, up, down in ends.changes(rows):
        predicted[kind, k] = (tangent.gradient * (up.double() - down.double())).flatten(1).sum(1).cpu()
    value = (ends.logits(rows).to(tangent.pull) * tangent.pull).sum(4).cpu()
    true = value[0] - value[1]
    usable = torch.isfinite(true).all((0, 1)) & torch.isfinite(tangent.gradient.flatten(1)).all(1).cpu()
    # rounding alone changes an output by this much; what changes less does not change
    usable &= ((true.abs() > 1e-7 * gap.abs().cpu()).flatten(0, 1).any(0)) & (gap > 0).cpu()
    sizes = torch.tensor(SIZES, dtype=torch.float64).repeat(DIRECTIONS)[:DIRECTIONS].view(1, -1, 1)
    predicted, true = predicted / sizes, true / sizes
    cosine = (predicted * true).sum(1) / (predicted.norm(dim=1) * true.norm(dim=1)).clamp_min(1e-300)
    needed = gap / tangent.gradient.flatten(1).abs().sum(1).clamp_min(1e-300)
    return _Part(cosine, needed.cpu(), usable)


def _summary(parts: Sequence[_Part], answers: Sequence[_Tangent]) -> Derivative:
    """answers: for all images of which decisions are known, compared or not yet."""
    usable, logits = torch.cat([p.usable for p in parts]), torch.cat([a.logits for a in answers])
    count, total = int(usable.sum()), len(usable)
    differ = bool(((logits - logits[:1]).abs() > 1e-6 * logits.abs().max()).any())
    flat = 2 * count < total and differ
    if not count:
        return Derivative(math.nan, math.nan, 0, total, flat)
    cosine = torch.cat([p.cosine for p in parts], 1)[:, usable].mean(1)
    needed = torch.cat([p.needed for p in parts])[usable]
    several = len(torch.unique(torch.cat([a.decided for a in answers]), dim=0)) > 1
    return Derivative(float(cosine.max()), float(needed.median()) if several else math.nan, count, total, flat)


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
        other = copies[name] = classifier.changed(net=wrap(classifier.plain_net), substitute=None)
        if other.inspection is not None:
            other.inspection = other.inspection.of_plain()
    return copies
