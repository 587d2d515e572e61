"""Smooth changes of intensity: a multiplicative bias field; exposure and gamma."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.lowfreq import cosines
from medrobust.attacks.parametric import Gradient, ParametricChange
from medrobust.attacks.spatial import drawn
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.seeds import Id

RANDOM = 8
"""Random bias fields among the starts."""


class BiasField(ParametricChange):
    """Brightness multiplied by a field that varies slowly over the image; its logarithm is a sum of cosines.

    factor: by how much at most, up and down. order: frequencies along each side. steps: of the ascent. All channels
    are multiplied alike.
    """

    title = "Bias field"
    source = "Tian et al. 2021, arXiv:2009.09247"

    def __init__(self, factor: float = 1.3, order: int = 3, steps: int = 10) -> None:
        _check(factor=factor)
        if order < 2:
            raise InputError(f"order must be at least 2, got {order}: with one frequency nothing varies")
        self.factor, self.order, self.steps = factor, order, steps

    @property
    def range(self) -> str:
        return f"brightness varied smoothly over the image by a factor of up to {self.factor:g}"

    def identity(self, images: Images) -> Tensor:
        return torch.zeros(len(images), self.order**2 - 1, device=images.device)

    def starts(self, images: Images, gradient: Gradient | None, seed: int, ids: Sequence[Id]) -> Iterator[Tensor]:  # noqa: ARG002
        none = self.identity(images)
        for single in torch.eye(none.shape[1], device=images.device):
            yield none + single
            yield none - single
        yield from seeds.signs(seed, "bias field", ids, (RANDOM, none.shape[1])).to(images.device).unbind(1)

    def changed(self, image: Images, parameters: Tensor) -> Images:
        height, width = image.shape[-2:]
        field = self._waves(height, parameters) @ self._with_constant(parameters) @ self._waves(width, parameters).T
        field = field / field.abs().amax().clamp_min(1)
        return (image.double() * (math.log(self.factor) * field).exp()).clamp(0, 1).to(image.dtype)

    def _waves(self, side: int, like: Tensor) -> Tensor:
        """float64 (side, order): cosines between -1 and 1."""
        waves = cosines(side, self.order).double().to(like.device)
        return waves / waves.abs().amax(0)

    def _with_constant(self, parameters: Tensor) -> Tensor:
        """As a square; no field is the same everywhere, which is an exposure."""
        return torch.cat([parameters.new_zeros(1), parameters]).double().view(self.order, self.order)

    def controls(self, found: Tensor, images: Images, seed: int, ids: Sequence[Id]) -> Mapping[str, list[Tensor]]:  # noqa: ARG002
        return drawn(found, seed, ids)

    def words(self, parameters: Tensor, image: Images) -> str:
        one = torch.full((1, 1, *image.shape[-2:]), 0.5 / self.factor)
        field = self.changed(one, parameters) / one
        return f"brightness times {float(field.amin()):.2f} to {float(field.amax()):.2f}"


class Exposure(ParametricChange):
    """The whole image brighter or darker: a factor, and an exponent (gamma).

    exposure, gamma: by how much at most, up and down. steps: of the ascent.
    """

    title = "Exposure and gamma"
    source = "after Tian et al. 2021, arXiv:2009.09247"

    def __init__(self, exposure: float = 1.3, gamma: float = 1.3, steps: int = 5) -> None:
        _check(exposure=exposure, gamma=gamma)
        self.exposure, self.gamma, self.steps = exposure, gamma, steps

    @property
    def range(self) -> str:
        return (
            f"brightness of the whole image times {1 / self.exposure:.2g} to {self.exposure:g}, with a gamma of "
            f"{1 / self.gamma:.2g} to {self.gamma:g}"
        )

    def identity(self, images: Images) -> Tensor:
        return torch.zeros(len(images), 2, device=images.device)

    def starts(self, images: Images, gradient: Gradient | None, seed: int, ids: Sequence[Id]) -> Iterator[Tensor]:  # noqa: ARG002
        for at in product((-1.0, 1.0, -0.5, 0.5, 0.0), repeat=2):
            if any(at):
                yield images.new_tensor(at).expand(len(images), -1)

    def changed(self, image: Images, parameters: Tensor) -> Images:
        gain, gamma = parameters.double().unbind()
        gain, gamma = torch.pow(self.exposure, gain), torch.pow(self.gamma, gamma)
        return (gain * image.double().pow(gamma)).clamp(0, 1).to(image.dtype)

    def controls(self, found: Tensor, images: Images, seed: int, ids: Sequence[Id]) -> Mapping[str, list[Tensor]]:  # noqa: ARG002
        return drawn(found, seed, ids)

    def words(self, parameters: Tensor, image: Images) -> str:  # noqa: ARG002
        gain, gamma = parameters.tolist()
        return f"brightness times {self.exposure**gain:.2f}, gamma {self.gamma**gamma:.2f}"


def _check(**factors: float) -> None:
    for name, factor in factors.items():
        if not 1 <= factor < math.inf:
            raise InputError(f"{name} is by how much at most, up and down: at least 1, got {factor:g}")
