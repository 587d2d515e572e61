"""Perturbations of bounded size: the geometry of Linf and L2, written once.

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

    def legal(self, origin: Images, images: Images) -> Tensor:
        """bool (n,): inside the ball up to TOLERANCE, inside [0, 1], and finite."""
        eps = self.eps.flatten() if isinstance(self.eps, Tensor) else self.eps
        inside = self.size(images - origin) <= eps + TOLERANCE
        return inside & ((images >= 0) & (images <= 1)).flatten(1).all(1)

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

    def draw(self, seed: int, purpose: str, ids: Sequence[seeds.Id], shape: Sequence[int]) -> Images:
        direction = self.ascent(seeds.normal(seed, purpose, ids, shape))
        radius = (seeds.uniform(seed, purpose + "/radius", ids, (1,)).view(-1) + 1) / 2
        return direction * radius.pow(1 / math.prod(shape)).view(-1, 1, 1, 1)
