"""Rotation, shift and scale (Engstrom et al. 2019, arXiv:1712.02779)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.parametric import Gradient, ParametricChange
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.seeds import Id

FILLS = {"edge": "border", "black": "zeros", "mirror": "reflection"}
"""What stands where nothing of the image is: its nearest pixel, black (as in the source), or its mirror image."""


class Spatial(ParametricChange):
    """The image turned, moved and scaled around its centre, bilinear.

    degrees: largest rotation. shift: largest movement, a share of the side. scale: largest change of the size (0.1:
    0.9 to 1.1). fill: see FILLS. steps: of the ascent that follows the grid.
    """

    title = "Rotation, shift and scale"
    source = "Engstrom et al. 2019, arXiv:1712.02779"

    def __init__(
        self, degrees: float = 15.0, shift: float = 0.1, scale: float = 0.1, fill: str = "edge", steps: int = 10
    ) -> None:
        if not (0 <= degrees <= 180 and 0 <= shift < 1 and 0 <= scale < 1):
            raise InputError(
                f"degrees must lie in 0..180, shift and scale in [0, 1), got {degrees:g}, {shift:g} and {scale:g}"
            )
        if fill not in FILLS:
            raise InputError(f"fill must be one of {', '.join(FILLS)}, got {fill!r}")
        self.degrees, self.shift, self.scale, self.fill, self.steps = degrees, shift, scale, fill, steps

    @property
    def range(self) -> str:
        outside = {"edge": "edges repeated", "black": "black", "mirror": "mirrored"}[self.fill]
        size = f"scaled by {1 - self.scale:g} to {1 + self.scale:g} ({outside} outside)"
        return f"turned by up to {self.degrees:g} degrees, moved by up to {100 * self.shift:g} % of the side and {size}"

    def identity(self, images: Images) -> Tensor:
        return torch.zeros(len(images), 4, device=images.device)

    def starts(self, images: Images, gradient: Gradient | None, seed: int, ids: Sequence[Id]) -> Iterator[Tensor]:  # noqa: ARG002
        for at in product((-1.0, 1.0, -0.5, 0.5, 0.0), (-1.0, 1.0, 0.0), (-1.0, 1.0, 0.0)):
            if any(at):
                yield images.new_tensor([*at, 0.0]).expand(len(images), -1)

    def changed(self, image: Images, parameters: Tensor) -> Images:
        # in float64: at no rotation and whole pixels the values of the image itself come back
        angle, down, across, size = parameters.double().unbind()
        angle, size = angle * math.radians(self.degrees), 1 + self.scale * size
        down, across = 2 * self.shift * down, 2 * self.shift * across  # of axes from -1 to 1
        cosine, sine, ratio = angle.cos() / size, angle.sin() / size, image.shape[-2] / image.shape[-1]
        to_right, to_left = sine * ratio, -sine / ratio
        columns = (cosine, to_left, to_right, cosine)
        offsets = (-cosine * across - to_right * down, -to_left * across - cosine * down)
        # from where each pixel is read
        matrix = torch.stack([*columns, *offsets]).view(3, 2)
        grid = (_places(*image.shape[-2:]).to(image.device) @ matrix).view(1, *image.shape[-2:], 2)
        moved = F.grid_sample(image.double(), grid, "bilinear", FILLS[self.fill], align_corners=False)
        return moved.clamp(0, 1).to(image.dtype)

    def controls(self, found: Tensor, images: Images, seed: int, ids: Sequence[Id]) -> Mapping[str, list[Tensor]]:  # noqa: ARG002
        return drawn(found, seed, ids)

    def words(self, parameters: Tensor, image: Images) -> str:
        angle, down, across, size = parameters.tolist()
        height, width = image.shape[-2:]
        return (
            f"turned by {_toward(self.degrees * angle, 'degree', 'left', 'right')}, moved by "
            f"{_toward(self.shift * across * width, 'pixel', 'left', 'right')} and "
            f"{_toward(self.shift * down * height, 'pixel', 'up', 'down')}, scaled by {1 + self.scale * size:.2f}"
        )


def _toward(size: float, unit: str, negative: str, positive: str) -> str:
    """ "3 pixels left"."""
    number = f"{abs(size):.0f}"
    return f"{number} {unit}{'' if number == '1' else 's'} {negative if size < 0 else positive}"


@lru_cache(maxsize=8)
def _places(height: int, width: int) -> Tensor:
    """float64 (height width, 3): column and row of each pixel from -1 to 1, and 1."""
    rows, columns = ((2 * torch.arange(side).double() + 1) / side - 1 for side in (height, width))
    grid = torch.stack([columns.expand(height, -1), rows[:, None].expand(-1, width), torch.ones(height, width)], -1)
    return grid.view(-1, 3)


DRAWS = 10
"""Changes drawn at random for each image."""


def drawn(found: Tensor, seed: int, ids: Sequence[Id], draws: int = DRAWS) -> Mapping[str, list[Tensor]]:
    """``draws`` random parameters (n, k) from the whole box."""
    shape = (draws, found.shape[1])
    return {"random": list(seeds.uniform(seed, "change/random", ids, shape).to(found.device).unbind(1))}
