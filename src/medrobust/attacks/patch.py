"""A patch or marker (Brown et al. 2017, arXiv:1712.09665), at one place or anywhere (LaVAN, arXiv:1801.02608)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.parametric import Gradient, ParametricChange
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.seeds import Id

NOISE = 5
"""Patches of noise for each image."""


class Patch(ParametricChange):
    """A square whose pixels are free, at one place, each image with its own. The first two parameters are the place,
    which the ascent leaves alone: 0 is the first row or column at which the patch lies within the image, 1 the last.

    side: as a share of the shorter side of the image. row, column: the place. steps: of the ascent on the pixels.
    """

    title = "Patch at a fixed place"
    source = "Brown et al. 2017, arXiv:1712.09665"
    low = 0.0

    def __init__(self, side: float = 0.1, row: float = 0.05, column: float = 0.05, steps: int = 20) -> None:
        if not (0 < side <= 1 and 0 <= row <= 1 and 0 <= column <= 1):
            raise InputError(f"side, row and column are shares in [0, 1], got {side:g}, {row:g} and {column:g}")
        self.side, self.row, self.column, self.steps = side, row, column, steps

    @property
    def places(self) -> list[tuple[float, float]]:
        """Places that are tried, as rows and columns."""
        return [(self.row, self.column)]

    @property
    def range(self) -> str:
        return f"a patch of {100 * self.side:g} % of the side with any pixels, at one place"

    def pixels(self, images: Images) -> int:
        """Side in pixels."""
        return max(1, round(self.side * min(images.shape[-2:])))

    def corner(self, images: Images, place: Tensor) -> tuple[int, int]:
        """First row and column of a patch at that place."""
        free = (length - self.pixels(images) for length in images.shape[-2:])
        top, left = (round(share * room) for share, room in zip(place.tolist(), free, strict=True))
        return top, left

    def identity(self, images: Images) -> Tensor:
        return self._with_place(images, self.places[len(self.places) // 2], images)

    def starts(self, images: Images, gradient: Gradient | None, seed: int, ids: Sequence[Id]) -> Iterator[Tensor]:  # noqa: ARG002
        ends = [torch.ones_like(images), torch.zeros_like(images)]
        if gradient is not None:
            ends.insert(0, (gradient() > 0).to(images.dtype))  # the best of a linear network
        for pixels, place in product(ends, self.places):
            yield self._with_place(images, place, pixels)

    def _with_place(self, images: Images, place: Sequence[float], pixels: Images) -> Tensor:
        """Parameters of a patch that is cut out of ``pixels`` (n, c, h, w)."""
        side, where = self.pixels(images), images.new_tensor(place)
        top, left = self.corner(images, where)
        cut = pixels[..., top : top + side, left : left + side].flatten(1)
        return torch.cat([where.expand(len(images), -1), cut], 1)

    def changed(self, image: Images, parameters: Tensor) -> Images:
        side, (top, left) = self.pixels(image), self.corner(image, parameters[:2].detach())
        height, width = image.shape[-2:]
        around = (left, width - left - side, top, height - top - side)
        patch = F.pad(parameters[2:].view(1, -1, side, side), around)
        covered = F.pad(torch.ones(side, side, dtype=torch.bool, device=image.device), around)
        return torch.where(covered, patch, image)

    def controls(self, found: Tensor, images: Images, seed: int, ids: Sequence[Id]) -> Mapping[str, list[Tensor]]:  # noqa: ARG002
        noise = seeds.uniform(seed, "patch/noise", ids, (NOISE, found.shape[1] - 2)).to(found.device) / 2 + 0.5
        bright = torch.cat([found[:, :2], torch.ones_like(found[:, 2:])], 1)
        return {"noise patch": [torch.cat([found[:, :2], one], 1) for one in noise.unbind(1)], "bright patch": [bright]}

    def words(self, parameters: Tensor, image: Images) -> str:  # noqa: ARG002
        side = self.pixels(image)
        share = side**2 / math.prod(image.shape[-2:])
        return f"patch of {side} x {side} pixels ({100 * share:.1f} % of the image)"


class PatchAnywhere(Patch):
    """The same, at the worst place of each image among a grid of them.

    along: places tried along each side.
    """

    title = "Patch at the worst place"
    source = "Karmon et al. 2018, arXiv:1801.02608"

    def __init__(self, side: float = 0.1, along: int = 5, steps: int = 20) -> None:
        super().__init__(side, steps=steps)
        if along < 1:
            raise InputError(f"along must be at least 1, got {along}")
        self.along = along
        del self.row, self.column

    @property
    def places(self) -> list[tuple[float, float]]:
        shares = torch.linspace(0, 1, self.along).tolist()
        return list(product(shares, shares))

    @property
    def range(self) -> str:
        return f"a patch of {100 * self.side:g} % of the side with any pixels, at the worst of {self.along**2} places"
