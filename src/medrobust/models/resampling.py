"""Resampling of images along their rows and columns as Pillow, torchvision and OpenCV do it, with gradients."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def on_tensors(images: Tensor, size: tuple[int, int], kind: str) -> Tensor:
    """As torchvision resizes float tensors."""
    if kind == "nearest":
        return F.interpolate(images, size, mode="nearest")
    if kind == "area":
        return F.interpolate(images, size, mode="area")
    out = F.interpolate(images, size, mode=kind, align_corners=False, antialias=True)
    return out.clamp(0, 1) if kind == "bicubic" else out


class _Taps(NamedTuple):
    """A resampling along one axis: output i is the sum over t of weight[i, t] * input[index[i, t]], in units of
    ``unit``. back_places and back_weight: the transposed one, in units of 1, for the gradient."""

    places: Tensor
    weight: Tensor
    unit: float
    back_places: Tensor
    back_weight: Tensor


PARTS = 1024
"""Parts of a grey level to which pixels between two levels are rounded: Pillow's sums then are whole numbers below
2^53 and exact in float64, whatever the order of their terms."""


class EightBits(torch.autograd.Function):
    """Resizes 8-bit images as Pillow does (across, rounded to grey levels, then down, rounded again) or OpenCV (rounded
    once).

    Equal to the bit to Pillow for images on the grid of 8 bits. The gradient is that of the resampling without rounding
    (the straight-through estimator of Athalye et al. 2018, arXiv:1802.00420): rounding has none.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, height: int, width: int, kind: str, library: str, rounded: bool) -> Tensor:
        across = _taps(images.shape[-1], width, kind, library, images.device)
        down = _taps(images.shape[-2], height, kind, library, images.device)
        ctx.across, ctx.down = across, down
        sums = _along((images.double() * (255 * PARTS)).round(), across.places, across.weight, -1)
        unit = across.unit * PARTS
        if not rounded:
            sums = _along(sums, down.places, down.weight, -2)
            return (sums / (unit * down.unit * 255)).clamp_(0, 1).to(images.dtype)
        if library == "pil":
            sums, unit = _rounded(sums, unit), 1.0
        levels = _rounded(_along(sums, down.places, down.weight, -2), unit * down.unit)
        return (levels / 255).to(images.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        gradient = _along(gradient, ctx.down.back_places, ctx.down.back_weight.to(gradient), -2)
        gradient = _along(gradient, ctx.across.back_places, ctx.across.back_weight.to(gradient), -1)
        return gradient, None, None, None, None, None


def _rounded(sums: Tensor, unit: float) -> Tensor:
    """Whole grey levels from 0 to 255, halves up."""
    return ((sums + unit / 2) / unit).floor_().clamp_(0, 255)


def _along(values: Tensor, index: Tensor, weight: Tensor, axis: int) -> Tensor:
    """The resampling along the last or last but one axis; terms are added in one order, whatever the batch."""
    total: Tensor | None = None
    for tap in range(index.shape[1]):
        factor = weight[:, tap] if axis == -1 else weight[:, tap, None]
        term = values.index_select(axis, index[:, tap]).mul_(factor)
        total = term if total is None else total.add_(term)
    assert total is not None
    return total


@functools.lru_cache(64)
def _taps(size: int, wanted: int, kind: str, library: str, device: torch.device) -> _Taps:
    """From ``size`` pixels to ``wanted``."""
    rows, unit = _pillow(size, wanted, kind) if library == "pil" else _opencv(size, wanted, kind)
    back: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    for i, row in enumerate(rows):
        for j, weight in row:
            back[j].append((i, weight / unit))
    tables = [t.to(device) for t in (*_table(rows), *_table(back))]
    return _Taps(tables[0], tables[1], unit, tables[2], tables[3])


Row = list[tuple[int, float]]
"""(position, weight) of one output pixel."""


def _table(rows: list[Row]) -> tuple[Tensor, Tensor]:
    """int64 positions and float64 weights, (outputs, taps); rows that are shorter end in weights of 0."""
    taps = max(1, max(len(row) for row in rows))
    filled = [[*row, *[(0, 0.0)] * (taps - len(row))] for row in rows]
    index = torch.tensor([[j for j, _ in row] for row in filled])
    return index, torch.tensor([[w for _, w in row] for row in filled], dtype=torch.float64)


def _pillow(size: int, wanted: int, kind: str) -> tuple[list[Row], float]:
    """Pillow's fixed-point weights (``Resample.c``): the filter is widened by the scale where the image shrinks."""
    if size == wanted:
        return [[(i, 1.0)] for i in range(size)], 1.0
    scale = size / wanted
    if kind == "nearest":
        places = itertools.accumulate([scale] * (wanted - 1), initial=scale / 2)  # added up, as Pillow does
        return [[(min(int(x), size - 1), 1.0)] for x in places], 1.0
    unit, widened = 2**22, max(scale, 1.0)
    support = (1.0 if kind == "bilinear" else 2.0) * widened
    rows = []
    for i in range(wanted):
        centre = (i + 0.5) * scale
        first, stop = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), size)
        weights = [_kernel(kind, (j - centre + 0.5) / widened, -0.5) for j in range(first, stop)]
        total = sum(weights)
        fixed = [int(math.copysign(0.5, w) + w / total * unit) for w in weights]
        rows.append([(first + j, float(w)) for j, w in enumerate(fixed)])
    return rows, float(unit)


def _opencv(size: int, wanted: int, kind: str) -> tuple[list[Row], float]:
    """OpenCV's weights: 11 bits for its linear and cubic filters, which are never widened; overlaps for ``area``."""
    if size == wanted:
        return [[(i, 1.0)] for i in range(size)], 1.0
    scale, last = size / wanted, size - 1
    if kind == "nearest":
        return [[(min(int(i * scale), last), 1.0)] for i in range(wanted)], 1.0
    if kind == "area" and scale > 1:
        edges = [(i * scale, min((i + 1) * scale, size)) for i in range(wanted)]
        spans = [(a, b, range(int(a), min(math.ceil(b), size))) for a, b in edges]
        return [[(j, (min(b, j + 1) - max(a, j)) / (b - a)) for j in span] for a, b, span in spans], 1.0
    unit, rows = 2**11, []
    for i in range(wanted):
        at = (i + 0.5) * scale - 0.5
        reach = (0, 1) if kind != "bicubic" else (-1, 0, 1, 2)
        places = [math.floor(at) + step for step in reach]
        weights = [_kernel("bilinear" if kind == "area" else kind, j - at, -0.75) for j in places]
        rows.append([(min(max(j, 0), last), float(round(w * unit))) for j, w in zip(places, weights, strict=True)])
    return rows, float(unit)


def _kernel(kind: str, x: float, a: float) -> float:
    """The triangle, or the cubic of Keys 1981 with ``a``."""
    x = abs(x)
    if kind == "bilinear":
        return max(0.0, 1 - x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0
