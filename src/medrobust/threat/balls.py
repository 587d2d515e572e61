"""Perturbations of bounded size: the geometry of Linf, L2, L1 and L0, written once.

eps is a fraction of the pixel range: 1/255 is one 8-bit grey level. All methods work on perturbations
(n, c, h, w), and ``eps`` may differ from row to row (see ``at``).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.errors import InputError
from medrobust.images import Images, Lazy, PerImage, chunks

TOLERANCE = 1e-6
"""How far a size may exceed eps through float32 rounding (0.0003 of a grey level)."""

SAME_LEVEL = 0.01
"""How many stored levels a size may miss through float32 rounding, at 16 bits too."""


class Ball(ABC):
    """All perturbations of size at most eps in one norm."""

    name: str

    def __init__(self, eps: float | Tensor) -> None:
        self.eps = eps if isinstance(eps, Tensor) else self._checked(eps)

    @classmethod
    def _checked(cls, eps: float) -> float:
        eps = float(eps)
        if not eps >= 0:
            raise InputError(f"eps must not be negative, got {eps}")
        return eps

    def at(self, eps: PerImage) -> Ball:
        """The same norm with an eps for each row."""
        return type(self)(eps.view(-1, 1, 1, 1))

    @abstractmethod
    def size(self, delta: Images) -> PerImage:
        """Norm of each perturbation."""

    @abstractmethod
    def project(self, delta: Images) -> Images:
        """The nearest perturbation inside; those inside already come back unchanged."""

    @abstractmethod
    def ascent(self, gradient: Images) -> Images:
        """The perturbation of size 1 with the largest inner product with ``gradient``; 0 where that is 0."""

    @abstractmethod
    def dual_norm(self, gradient: Images) -> PerImage:
        """The largest inner product of ``gradient`` with a perturbation of size 1."""

    @abstractmethod
    def nearest(self, gradient: Images, gain: PerImage, room: Images) -> Images:
        """The smallest perturbation whose inner product with ``gradient`` is ``gain`` (n,), at least 0.

        room: how far each value may move along the sign of the gradient; all of it where no perturbation has that gain.
        """

    @abstractmethod
    def draw(self, seed: int, purpose: str, ids: Sequence[seeds.Id], shape: Sequence[int]) -> Images:
        """Uniform random perturbations in the ball of size 1, each row keyed by its id; on the CPU."""

    def at_edge(self, delta: Images) -> Images:
        """Each perturbation scaled to size 1; 0 stays 0."""
        size = self.size(delta).view(-1, 1, 1, 1)
        return delta / torch.where(size > 0, size, torch.ones_like(size))

    @abstractmethod
    def whole(self, levels: int) -> Ball:
        """The smallest ball that holds the same perturbations of whole multiples of 1 / ``levels``."""

    def move(self, origin: Images, images: Images) -> Images:
        """``images`` brought back into this ball around ``origin`` and into [0, 1].

        Clipping moves every pixel towards ``origin``, so the result stays in the ball.
        """
        return (origin + self.project(images - origin)).clamp(0, 1)

    def most_gain(self, origin: Images, images: Images, gradient: Images) -> PerImage:
        """The largest inner product of ``gradient`` with a move from ``images`` to anywhere in this ball around
        ``origin`` (the gap of Frank & Wolfe 1956): what a function of that gradient can gain, to first order."""
        eps = self.eps.flatten() if isinstance(self.eps, Tensor) else self.eps
        return eps * self.dual_norm(gradient) - (gradient * (images - origin)).flatten(1).sum(1)

    def legal(self, origin: Images, images: Images) -> Tensor:
        """bool (n,): inside the ball up to TOLERANCE, inside [0, 1], and finite."""
        eps = self.eps.flatten() if isinstance(self.eps, Tensor) else self.eps
        inside = self.size(images - origin) <= eps + self.tolerance(eps)
        return inside & ((images >= 0) & (images <= 1)).flatten(1).all(1)

    @staticmethod
    def tolerance(eps: float | Tensor) -> float | Tensor:  # noqa: ARG004 (a sum of many values needs more)
        """How far a size may exceed ``eps`` through float32 rounding."""
        return TOLERANCE

    @classmethod
    def relative(cls, zeta: float, images: Images | Lazy, of: str = "mean norm") -> Ball:
        """eps = zeta x the mean norm of ``images``, or the norm of the mean image (of="mean image").

        Hirano et al. 2021 take the mean norm. images: a tensor, or anything lazy such as a Dataset.
        """
        if not zeta > 0:
            raise InputError(f"zeta must be positive, got {zeta}")
        if of not in ("mean norm", "mean image"):
            raise InputError(f"of must be 'mean norm' or 'mean image', got {of!r}")
        if not len(images):
            raise InputError("a relative eps needs at least one image, got none")
        # not through cls(0).size on the result: an Linf ball checks its eps against the pixel range only
        ball, total = cls(0.0), 0.0
        mean: Tensor | float = 0.0
        for chunk in chunks(images, 64):
            total += float(ball.size(chunk).double().sum())
            mean = mean + chunk.double().sum(0, keepdim=True)
        if of == "mean norm":
            return cls(zeta * total / len(images))
        assert isinstance(mean, Tensor)
        return cls(zeta * float(ball.size(mean / len(images))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.eps if isinstance(self.eps, Tensor) else round(self.eps * 255, 6)}/255)"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Ball) and bool(self.eps == other.eps)

    def __hash__(self) -> int:
        return hash((type(self).__name__, float(self.eps)))


class Linf(Ball):
    """No pixel changes by more than eps (a fraction of the pixel range)."""

    name = "linf"

    @classmethod
    def _checked(cls, eps: float) -> float:
        eps = super()._checked(eps)
        if eps > 1 and not math.isinf(eps):
            raise InputError(f"eps {eps:g} is more than the whole pixel range; eps is a fraction of it: {eps:g}/255?")
        return eps

    def size(self, delta: Images) -> PerImage:
        return delta.flatten(1).abs().amax(1)

    def project(self, delta: Images) -> Images:
        eps = torch.as_tensor(self.eps, dtype=delta.dtype, device=delta.device)
        return delta.minimum(eps).maximum(-eps)

    def whole(self, levels: int) -> Linf:
        eps = self.eps.double() if isinstance(self.eps, Tensor) else torch.tensor(float(self.eps), dtype=torch.float64)
        whole = (eps * levels + SAME_LEVEL).floor() / levels
        return Linf(whole.float() if isinstance(self.eps, Tensor) else float(whole))

    def ascent(self, gradient: Images) -> Images:
        return gradient.sign()

    def dual_norm(self, gradient: Images) -> PerImage:
        return gradient.flatten(1).abs().sum(1)

    def nearest(self, gradient: Images, gain: PerImage, room: Images) -> Images:
        return _in_step(gradient, gain, room, torch.ones_like(gradient))

    def draw(self, seed: int, purpose: str, ids: Sequence[seeds.Id], shape: Sequence[int]) -> Images:
        return seeds.uniform(seed, purpose, ids, shape)


class L2(Ball):
    """The Euclidean length of the change is at most eps."""

    name = "l2"

    def size(self, delta: Images) -> PerImage:
        length: Tensor = delta.flatten(1).norm(dim=1)
        return length

    def project(self, delta: Images) -> Images:
        # the factor is clamped, not the vector: a short vector must not grow (adv_lib's defect)
        length = self.size(delta).clamp_min(torch.finfo(delta.dtype).tiny).view(-1, 1, 1, 1)
        return delta * (self.eps / length).clamp_max(1)

    def whole(self, levels: int) -> L2:  # noqa: ARG002 - nearly every length has a perturbation of whole levels
        return self

    def ascent(self, gradient: Images) -> Images:
        # scaled by its largest entry first, or the squares of a tiny gradient vanish in float32
        top = gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
        scaled = gradient / torch.where(top > 0, top, torch.ones_like(top))
        length = self.size(scaled).view(-1, 1, 1, 1)
        return scaled / torch.where(length > 0, length, torch.ones_like(length))

    def dual_norm(self, gradient: Images) -> PerImage:
        return self.size(gradient)

    def nearest(self, gradient: Images, gain: PerImage, room: Images) -> Images:
        return _in_step(gradient, gain, room, gradient.abs())

    def draw(self, seed: int, purpose: str, ids: Sequence[seeds.Id], shape: Sequence[int]) -> Images:
        direction = self.ascent(seeds.normal(seed, purpose, ids, shape))
        radius = (seeds.uniform(seed, purpose + "/radius", ids, (1,)).view(-1) + 1) / 2
        return direction * radius.pow(1 / math.prod(shape)).view(-1, 1, 1, 1)


class L1(Ball):
    """The sum of all changes is at most eps (1: one value through the whole pixel range)."""

    name = "l1"

    @staticmethod
    def tolerance(eps: float | Tensor) -> float | Tensor:
        return TOLERANCE * (1 + eps)

    def size(self, delta: Images) -> PerImage:
        return delta.flatten(1).abs().double().sum(1).to(delta.dtype)

    def project(self, delta: Images) -> Images:
        # every value shrinks by the same amount (Duchi et al. 2008)
        ordered = delta.flatten(1).abs().double().sort(1, descending=True).values
        eps = torch.as_tensor(self.eps, dtype=torch.float64, device=delta.device).reshape(-1, 1)
        count = torch.arange(1, ordered.shape[1] + 1, device=delta.device)
        amount = ((ordered.cumsum(1) - eps) / count).amax(1).clamp_min(0).to(delta.dtype).view(-1, 1, 1, 1)
        return delta - delta.minimum(amount).maximum(-amount)

    def whole(self, levels: int) -> L1:
        eps = self.eps.double() if isinstance(self.eps, Tensor) else torch.tensor(float(self.eps), dtype=torch.float64)
        whole = (eps * levels + SAME_LEVEL).floor() / levels
        return L1(whole.float() if isinstance(self.eps, Tensor) else float(whole))

    def ascent(self, gradient: Images) -> Images:
        return _largest(gradient)

    def dual_norm(self, gradient: Images) -> PerImage:
        return gradient.flatten(1).abs().amax(1)

    def nearest(self, gradient: Images, gain: PerImage, room: Images) -> Images:
        return _one_by_one(gradient, gain, room, gradient.abs())

    def draw(self, seed: int, purpose: str, ids: Sequence[seeds.Id], shape: Sequence[int]) -> Images:
        n = math.prod(shape)
        share = -((seeds.uniform(seed, purpose, ids, (n + 1,)).double() + 1) / 2).clamp_min(1e-12).log()
        share = share / share.sum(1, keepdim=True)  # uniform in the simplex; the last is what is left of the ball
        return share[:, :n].float().view(-1, *shape) * seeds.signs(seed, purpose + "/signs", ids, shape)


class L0(Ball):
    """At most eps values change, each as far as it likes; a value is one channel of one pixel.

    This is no norm: a perturbation of half the length changes as many values.
    """

    name = "l0"

    def size(self, delta: Images) -> PerImage:
        return (delta != 0).flatten(1).sum(1).to(delta.dtype)

    def project(self, delta: Images) -> Images:
        number = torch.as_tensor(self.eps, dtype=torch.float64, device=delta.device).reshape(-1, 1)
        rank = delta.flatten(1).abs().argsort(dim=1, descending=True, stable=True).argsort(1)
        return torch.where((rank + 1 <= number).view_as(delta), delta, 0.0)

    def at_edge(self, delta: Images) -> Images:
        return torch.where(_largest(delta) != 0, delta, 0.0)

    def whole(self, levels: int) -> L0:  # noqa: ARG002
        return L0(self.eps.floor() if isinstance(self.eps, Tensor) else float(self.eps // 1))

    def ascent(self, gradient: Images) -> Images:
        return _largest(gradient)

    def dual_norm(self, gradient: Images) -> PerImage:
        return gradient.flatten(1).abs().amax(1)

    def nearest(self, gradient: Images, gain: PerImage, room: Images) -> Images:
        return _one_by_one(gradient, gain, room, gradient.abs() * room)

    def draw(self, seed: int, purpose: str, ids: Sequence[seeds.Id], shape: Sequence[int]) -> Images:
        return self.at_edge(seeds.uniform(seed, purpose, ids, shape))


def _largest(gradient: Images) -> Images:
    """The sign of the value that is largest in size, the first of several; 0 elsewhere."""
    flat = gradient.flatten(1)
    first = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, first, flat.gather(1, first).sign()).view_as(gradient)


def _one_by_one(gradient: Images, gain: PerImage, room: Images, rank: Images) -> Images:
    """Values move as far as they can, those of the largest ``rank`` first, the last one only as far as is needed."""
    order = rank.flatten(1).argsort(dim=1, descending=True, stable=True)
    slope = gradient.flatten(1).double().gather(1, order)
    far = room.flatten(1).double().gather(1, order)
    full = (slope.abs() * far).cumsum(1)
    before = full - slope.abs() * far
    missing = (gain.double()[:, None] - before).clamp_min(0)
    moved = (missing / slope.abs().clamp_min(torch.finfo(torch.float64).tiny)).minimum(far) * slope.sign()
    return torch.zeros_like(moved).scatter(1, order, moved).view_as(gradient).to(gradient.dtype)


def _in_step(gradient: Images, gain: PerImage, room: Images, pace: Images) -> Images:
    """All values move together, each at its ``pace`` until its room ends."""
    slope, far, speed = gradient.flatten(1).abs().double(), room.flatten(1).double(), pace.flatten(1).double()
    end, order = (far / speed.clamp_min(torch.finfo(torch.float64).tiny)).sort(1)
    stopped = (slope * far).gather(1, order).cumsum(1)
    rate = (slope * speed).gather(1, order)
    moving = rate.sum(1, keepdim=True) - rate.cumsum(1)
    wanted = gain.double()[:, None]
    segment = ((stopped + end * moving.clamp_min(0)) < wanted).sum(1, keepdim=True)
    first = torch.zeros_like(wanted)
    before = torch.cat([first, stopped], 1).gather(1, segment)
    left = torch.cat([rate.sum(1, keepdim=True), moving], 1).gather(1, segment)
    time = torch.where(left > 0, (wanted - before) / left.clamp_min(torch.finfo(torch.float64).tiny), torch.inf)
    time = torch.where(wanted > 0, time, 0.0)
    moved = torch.where(speed > 0, (time * speed).minimum(far), 0.0)
    return (moved.view_as(gradient) * gradient.sign()).to(gradient.dtype)
