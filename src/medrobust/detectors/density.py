"""Kernel density of the penultimate features (Feinman et al. 2017, arXiv:1703.00410; Ma et al. 2020)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medrobust.detectors.detector import Detector
from medrobust.detectors.distances import squared, squared_to
from medrobust.detectors.features import PENULTIMATE, LayerFeatures
from medrobust.detectors.rule import Logistic, Rule, Sum
from medrobust.errors import InputError

LIKELIHOOD = "likelihood"


class KernelDensity(Detector):
    """Log density under a Gaussian kernel estimate of the PREDICTED class, then logistic regression.

    bandwidth: 1.0 as published, or "likelihood": the one under which the bank's own images, each left out in turn,
        are likeliest. A density of 1,280 features at bandwidth 1 is far below the smallest float64, so everything
        stays a logarithm (log-sum-exp); a density taken first and its logarithm after would read log 0.

    A class without an image in the bank is measured against the whole bank. ``info_["bandwidth"]`` is the one used.
    """

    title = "Kernel density"
    source = "Feinman et al. 2017, arXiv:1703.00410; Ma et al. 2020, arXiv:1907.10456"
    needs_attacks = False
    uses_bank = True
    sorts = True

    def __init__(self, bandwidth: float | str = 1.0, layers: Sequence[str] = (PENULTIMATE,)) -> None:
        if bandwidth != LIKELIHOOD and not (isinstance(bandwidth, int | float) and bandwidth > 0):
            raise InputError(f"bandwidth must be positive or {LIKELIHOOD!r}, got {bandwidth!r}")
        if len(layers) != 1:
            raise InputError(f"a kernel density reads one layer, got {', '.join(layers) or 'none'}")
        super().__init__(layers)
        self.bandwidth = bandwidth

    def learn(self, bank: LayerFeatures, classes: Tensor, seed: int) -> None:  # noqa: ARG002
        points, order = bank[self.layer].double().cpu(), classes.cpu().argsort(stable=True)
        classes = classes.cpu()[order]
        width = likeliest_bandwidth(points[order], classes) if isinstance(self.bandwidth, str) else self.bandwidth
        centre = points.mean(0)
        centred = points[order] - centre
        self.arrays_ = {
            "bank": centred,
            "lengths": (centred**2).sum(1),
            "centre": centre,
            "classes": classes,
            "bandwidth": torch.tensor([width], dtype=torch.float64),
        }
        self.info_ = {"bandwidth": float(width)}

    def log_density(self, table: LayerFeatures, classes: Tensor) -> Tensor:
        """float64 (n,): log density of each row under the estimate of its class in ``classes`` (n,)."""
        x = table[self.layer].double()
        same_class = classes.to(x.device)[:, None] == self.on("classes", x)[None]
        same_class = same_class | ~same_class.any(1, keepdim=True)
        kernels = self._exponents(x, slice(None)).masked_fill(~same_class, -torch.inf)
        return kernels.logsumexp(1) - self._scale(x, same_class.sum(1).double())

    def represent(self, table: LayerFeatures, predicted: Tensor) -> Tensor:
        return -self.log_density(table, predicted)[:, None]

    def represent_block(self, table: LayerFeatures, predicted: Tensor) -> Tensor:
        """Only the images of the block's one class are looked at; they lie together."""
        x, decided = table[self.layer].double(), predicted[0].cpu()
        first, end = (int(torch.searchsorted(self.arrays_["classes"], decided, side=s)) for s in ("left", "right"))
        same_class = slice(first, end) if end > first else slice(None)
        kernels = self._exponents(x, same_class)
        return (self._scale(x, torch.full_like(x[:, 0], kernels.shape[1])) - kernels.logsumexp(1))[:, None]

    def _exponents(self, x: Tensor, bank_rows: slice) -> Tensor:
        far = squared_to(x - self.on("centre", x), self.on("bank", x)[bank_rows], self.on("lengths", x)[bank_rows])
        return far / (-2 * self.on("bandwidth", x) ** 2)

    def _scale(self, x: Tensor, count: Tensor) -> Tensor:
        """Logarithm of what a sum of ``count`` (n,) kernels is divided by."""
        return count.log() + x.shape[1] * (0.5 * math.log(2 * math.pi) + self.on("bandwidth", x).log())

    def make_rule(self, supervised: bool) -> Rule:
        return Logistic() if supervised else Sum()


def likeliest_bandwidth(points: Tensor, classes: Tensor) -> float:
    """The bandwidth, among several, with the highest leave-one-out likelihood within the classes (Duin 1976).

    points: float64 (n, d). The ladder runs by factors of 2**0.25 around the median distance to the nearest neighbour
    over sqrt(d). Copies of an image would be likeliest at bandwidth 0: they are left out.
    """
    far = squared(points, points, points.mean(0))
    far = far.masked_fill((classes[:, None] != classes[None]) | torch.eye(len(points), dtype=torch.bool), torch.inf)
    far = far.masked_fill(far <= 1e-12 * points.var(0).sum(), torch.inf)
    far = far[torch.isfinite(far).any(1)]
    if not len(far):
        raise InputError("a bandwidth needs two different reference images of a class; give more, or a number")
    d = points.shape[1]
    base = float(far.amin(1).median().sqrt()) / math.sqrt(d)
    best, width = -math.inf, base
    for step in range(-8, 25):
        h = base * 2 ** (step / 4)
        likelihood = float((-far / (2 * h * h)).logsumexp(1).mean()) - d * math.log(h)
        if likelihood > best:
            best, width = likelihood, h
    return width
