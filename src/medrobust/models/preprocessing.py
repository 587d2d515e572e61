"""The steps between the pixels of a file and the input of a network, differentiable: resize, crop, pad, intensities.

They belong to the classifier: images go in at their own size and shape, perturbations live in the pixels of the file
and are measured there. Steps are written as text, in their order, commas between: ``resize=256,crop=224``.

    pad                 black bars to a square, as equal as can be
    resize=S            the shorter side to S pixels, the other in proportion (torchvision's Resize(S))
    resize=HxW          to H rows and W columns
    crop=S              the middle S x S pixels, black where the image is smaller (torchvision's CenterCrop)
    window=LOW:HIGH     values from LOW to HIGH (fractions of the pixel range) spread over [0, 1], clipped outside
    percentiles=P:Q     the same between two percentiles of each image
    scale=LOW:HIGH      [0, 1] to [LOW, HIGH]; the last step

A resize takes, after colons, a filter (bilinear, bicubic, nearest, area) and a library whose result it repeats:

    pil                 (default) Pillow with 8-bit images, as torchvision does on PIL images; equal to the bit
    tensor              torchvision on float tensors, antialiased
    opencv              cv2.resize: no antialiasing (but for ``area``), 8-bit rounding; within one grey level
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust.errors import InputError
from medrobust.images import Images

FILTERS = ("bilinear", "bicubic", "nearest", "area")
LIBRARIES = ("pil", "tensor", "opencv")
UNCOVERED = {
    "histogram": "histogram equalisation has no derivative",
    "equalize": "histogram equalisation has no derivative",
    "clahe": "CLAHE has no derivative",
}
"""Steps that are known and not covered, and why."""

Shape = tuple[int, int]
"""(height, width)"""


class PreprocessingStep(ABC):
    """One step. Steps work on float32 (n, c, h, w), every image for itself."""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """The images after the step, differentiable."""

    def shape(self, shape: Shape) -> Shape:
        """(height, width) after the step."""
        return shape

    def back(self, maps: Tensor, shape: Shape) -> Tensor:  # noqa: ARG002 - most steps move no pixel
        """Maps (n, 1, h, w) of the step's output, laid over its input of ``shape``: where each part of it came from."""
        return maps


@dataclass(frozen=True)
class PadToSquare(PreprocessingStep):
    """Black bars; the right and the lower one are a pixel larger where they cannot be equal."""

    def __call__(self, images: Tensor) -> Tensor:
        left, right, top, bottom = self._bars((images.shape[-2], images.shape[-1]))
        return F.pad(images, (left, right, top, bottom)) if max(left, right, top, bottom) else images

    def shape(self, shape: Shape) -> Shape:
        return (max(shape), max(shape))

    def back(self, maps: Tensor, shape: Shape) -> Tensor:
        left, _, top, _ = self._bars(shape)
        return maps[..., top : top + shape[0], left : left + shape[1]]

    def _bars(self, shape: Shape) -> tuple[int, int, int, int]:
        side = max(shape)
        top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
        return left, side - shape[1] - left, top, side - shape[0] - top


@dataclass(frozen=True)
class CentreCrop(PreprocessingStep):
    """The middle ``height`` x ``width`` pixels, placed and padded with black as torchvision's CenterCrop."""

    height: int
    width: int

    def __call__(self, images: Tensor) -> Tensor:
        h, w = images.shape[-2:]
        if h < self.height or w < self.width:
            more_h, more_w = max(0, self.height - h), max(0, self.width - w)
            images = F.pad(images, (more_w // 2, (more_w + 1) // 2, more_h // 2, (more_h + 1) // 2))
        top, left = self._corner((images.shape[-2], images.shape[-1]))
        return images[..., top : top + self.height, left : left + self.width]

    def shape(self, shape: Shape) -> Shape:  # noqa: ARG002 - the same for every input
        return (self.height, self.width)

    def back(self, maps: Tensor, shape: Shape) -> Tensor:
        h, w = (max(a, b) for a, b in zip(shape, (self.height, self.width), strict=True))
        top, left = self._corner((h, w))
        whole = F.pad(maps, (left, w - left - self.width, top, h - top - self.height))
        above, before = (h - shape[0]) // 2, (w - shape[1]) // 2
        return whole[..., above : above + shape[0], before : before + shape[1]]

    def _corner(self, shape: Shape) -> tuple[int, int]:
        return round((shape[0] - self.height) / 2.0), round((shape[1] - self.width) / 2.0)


@dataclass(frozen=True)
class Resize(PreprocessingStep):
    """To (height, width), or the shorter side to ``height`` where ``width`` is None."""

    height: int
    width: int | None = None
    filter: str = "bilinear"
    library: str = "pil"
    rounded: bool = True
    """Whether the result is rounded to 8 bits where the library does so."""

    def __call__(self, images: Tensor) -> Tensor:
        height, width = self.shape((images.shape[-2], images.shape[-1]))
        if (height, width) == tuple(images.shape[-2:]):
            return images
        if self.library == "tensor":
            return _on_tensors(images, (height, width), self.filter)
        return _EightBits.apply(images, height, width, self.filter, self.library, self.rounded)  # type: ignore[no-any-return]

    def shape(self, shape: Shape) -> Shape:
        if self.width is not None:
            return (self.height, self.width)
        short, long = min(shape), max(shape)
        other = int(self.height * long / short)
        return (self.height, other) if shape[0] <= shape[1] else (other, self.height)

    def back(self, maps: Tensor, shape: Shape) -> Tensor:
        return F.interpolate(maps, shape, mode="bilinear", align_corners=False)


@dataclass(frozen=True)
class Window(PreprocessingStep):
    """Values from ``low`` to ``high`` to [0, 1]; no gradient where they are clipped."""

    low: float
    high: float

    def __call__(self, images: Tensor) -> Tensor:
        return ((images - self.low) / (self.high - self.low)).clamp(0, 1)


@dataclass(frozen=True)
class Percentiles(PreprocessingStep):
    """Values between two percentiles of each image (over its channels, interpolated linearly) to [0, 1]."""

    low: float
    high: float

    def __call__(self, images: Tensor) -> Tensor:
        values = images.flatten(1)
        at = values.new_tensor([self.low / 100, self.high / 100])
        # sorted by hand: torch.quantile refuses more than 16 million values
        ordered = values.sort(1).values
        place = at * (values.shape[1] - 1)
        below = place.floor().long()
        above = (below + 1).clamp_max(values.shape[1] - 1)
        share = place - below
        low, high = (ordered[:, below] * (1 - share) + ordered[:, above] * share).unbind(1)
        low, high = low[:, None, None, None], high[:, None, None, None]
        return ((images - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)


@dataclass(frozen=True)
class Scale(PreprocessingStep):
    """[0, 1] to [low, high], as a network that does not take [0, 1] expects."""

    low: float
    high: float

    def __call__(self, images: Tensor) -> Tensor:
        return self.low + images * (self.high - self.low)


class Preprocessing:
    """Steps in their order, from text (see the module). Two of the same text are equal.

    Raises InputError for a step that is not known or not covered, and for one whose value is not possible.
    """

    def __init__(self, text: str) -> None:
        self.text = text.replace(" ", "")
        self.steps = tuple(_step(part) for part in self.text.split(",") if part)
        if not self.steps:
            raise InputError(f"no step of preprocessing in {text!r}; write for example resize=256,crop=224")
        if any(isinstance(step, Scale) for step in self.steps[:-1]):
            raise InputError(f"scale must be the last step of preprocessing, got {text!r}")

    def __call__(self, images: Images) -> Tensor:
        """float32 (n, c, h, w) of any size in [0, 1] to what is normalised for the network."""
        for step in self.steps:
            images = step(images)
        return images

    def without_rounding(self) -> Preprocessing:
        """The same with resizes that do not round to grey levels: what the gradient is the derivative of."""
        made = copy.copy(self)
        made.steps = tuple(replace(s, rounded=False) if isinstance(s, Resize) else s for s in self.steps)
        return made

    @property
    def rounds(self) -> bool:
        """Whether a resize rounds to grey levels."""
        return any(isinstance(s, Resize) and s.rounded and s.library != "tensor" for s in self.steps)

    def shape(self, shape: Shape) -> Shape:
        """(height, width) of the result for images of (height, width)."""
        for step in self.steps:
            shape = step.shape(shape)
        return shape

    def back(self, maps: Tensor, shape: Shape) -> Tensor:
        """Maps (n, h, w) over the network's input to maps over images of ``shape``; 0 for what was cut off."""
        shapes = [shape]
        for step in self.steps:
            shapes.append(step.shape(shapes[-1]))
        maps = F.interpolate(maps[:, None], shapes[-1], mode="bilinear", align_corners=False)
        for step, before in zip(reversed(self.steps), reversed(shapes[:-1]), strict=True):
            maps = step.back(maps, before)
        return maps[:, 0]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Preprocessing) and other.steps == self.steps

    def __hash__(self) -> int:
        return hash(self.steps)

    def __repr__(self) -> str:
        return f"Preprocessing({self.text!r})"


# -- text ------------------------------------------------------------------------------------------------


def _step(text: str) -> PreprocessingStep:
    name, _, value = text.partition("=")
    if name in UNCOVERED:
        raise InputError(
            f"preprocessing by {name} is not covered: {UNCOVERED[name]}; save the images after it and audit those, or "
            "give the whole pipeline as a classifier without gradients"
        )
    if name == "pad" and not value:
        return PadToSquare()
    if name == "crop":
        height, width = _sides(text, value)
        return CentreCrop(height, width or height)
    if name == "resize":
        size, *words = value.split(":")
        height, width = _sides(text, size)
        filters, libraries = [w for w in words if w in FILTERS], [w for w in words if w in LIBRARIES]
        if len(filters) > 1 or len(libraries) > 1 or len(filters) + len(libraries) < len(words):
            raise InputError(
                f"{text!r}: after the size, give a filter ({', '.join(FILTERS)}) and a library ({', '.join(LIBRARIES)})"
            )
        made = Resize(height, width, (filters or ["bilinear"])[0], (libraries or ["pil"])[0])
        if made.filter == "area" and made.library == "pil":
            raise InputError(f"{text!r}: Pillow's area filter is called box and is not covered; use area with opencv")
        return made
    if name in ("window", "percentiles", "scale"):
        low, high = _range(text, value)
        kind: Callable[[float, float], PreprocessingStep] = {
            "window": Window,
            "percentiles": Percentiles,
            "scale": Scale,
        }[name]
        if name == "percentiles" and not 0 <= low < high <= 100:
            raise InputError(f"{text!r}: percentiles lie between 0 and 100, the lower one first")
        return kind(low, high)
    raise InputError(
        f"{text!r} is no step of preprocessing; write pad, resize=256, crop=224, window=0.1:0.9, percentiles=1:99 or "
        "scale=-1024:1024, commas between"
    )


def _sides(text: str, value: str) -> tuple[int, int | None]:
    height, _, width = value.partition("x")
    if not height.isdecimal() or (width and not width.isdecimal()) or int(height) < 1 or (width and int(width) < 1):
        raise InputError(f"{text!r}: a size is a number of pixels, as in 224 or 256x192")
    return int(height), int(width) if width else None


def _range(text: str, value: str) -> tuple[float, float]:
    low, _, high = value.partition(":")
    try:
        pair = float(low), float(high)
    except ValueError:
        raise InputError(f"{text!r}: give two numbers with a colon between, the lower one first") from None
    if not all(map(math.isfinite, pair)) or pair[0] >= pair[1]:
        raise InputError(f"{text!r}: give two numbers with a colon between, the lower one first")
    return pair


# -- resampling --------------------------------------------------------------------------------------------


def _on_tensors(images: Tensor, size: Shape, kind: str) -> Tensor:
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


class _EightBits(torch.autograd.Function):
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
