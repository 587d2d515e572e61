"""How to read what a layer of a network gives: which axes hold images, positions and channels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust.errors import InputError


@dataclass(frozen=True)
class Layout:
    """How to read a layer's output.

    batch: the axis that counts images. per_image: entries of that axis for one image, more than 1 where windows are
    folded into it; interleaved: the images alternate there. positions: axes of the image's (rows, columns), or of
    (tokens,), counted with images first and folded windows as axis 1. prefix: tokens before the first position. grid:
    (height, width) in positions, None where the layer has no map. fault: why it holds nothing of an image, else empty.
    """

    batch: int = 0
    per_image: int = 1
    interleaved: bool = False
    positions: tuple[int, ...] = ()
    prefix: int = 0
    grid: tuple[int, int] | None = None
    fault: str = ""

    def images_first(self, output: Tensor) -> Tensor:
        """(n, ...), or (n, windows, ...) where windows are folded into the axis of images."""
        values = output.movedim(self.batch, 0)
        if self.per_image == 1:
            return values
        if self.interleaved:
            return torch.unflatten(values, 0, (self.per_image, -1)).movedim(1, 0)
        return torch.unflatten(values, 0, (-1, self.per_image))

    def pooled(self, output: Tensor) -> Tensor:
        """(n, d): the mean over positions, tokens before the first one left out."""
        values = self.images_first(output)
        if self.prefix:
            values = values.narrow(self.positions[0], self.prefix, values.shape[self.positions[0]] - self.prefix)
        return (values.mean(self.positions) if self.positions else values).flatten(1)

    def maps(self, output: Tensor) -> Tensor:
        """(n, c, h, w); for a layout with a grid."""
        assert self.grid is not None
        values = self.images_first(output)
        if len(self.positions) == 1:
            axis = self.positions[0]
            values = values.narrow(axis, self.prefix, values.shape[axis] - self.prefix)
            return torch.unflatten(values.movedim(axis, -1).flatten(1, -2), -1, self.grid)
        return values.movedim(self.positions, (-2, -1)).flatten(1, -3)


def tensor_of(output: object, name: str) -> Tensor:
    """The tensor that a module gave, the first of several; InputError where there is none."""
    if isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.ndim < 2:
        raise InputError(f"layer {name!r} gives no tensor (n, ...) of one row an image; name another layer")
    return output
