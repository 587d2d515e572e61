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
    display             of stored values around a window, those that are shown; put before the others by ``seeing``

A resize takes, after colons, a filter (bilinear, bicubic, nearest, area) and a library whose result it repeats:

    pil                 (default) Pillow with 8-bit images, as torchvision does on PIL images; equal to the bit
    tensor              torchvision on float tensors, antialiased
    opencv              cv2.resize: no antialiasing (but for ``area``), 8-bit rounding; within one grey level
"""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from medrobust.errors import InputError
from medrobust.images import SPAN, Images
from medrobust.models.resampling import EightBits, on_tensors

FILTERS = ("bilinear", "bicubic", "nearest", "area")
LIBRARIES = ("pil", "tensor", "opencv")
UNCOVERED = {
    "histogram": "histogram equalisation has no derivative",
    "equalize": "histogram equalisation has no derivative",
    "clahe": "CLAHE has no derivative",
}
"""Steps that are known and not covered, and why."""

DISPLAY = "display"
"""The step that is put before others where images hold stored values around a window."""

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
            return on_tensors(images, (height, width), self.filter)
        return EightBits.apply(images, height, width, self.filter, self.library, self.rounded)  # type: ignore[no-any-return]

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
class Display(PreprocessingStep):
    """The middle third of what a pixel may hold to [0, 1]; see ``images.SPAN``. Exact at both ends in float32."""

    def __call__(self, images: Tensor) -> Tensor:
        return (images * SPAN - 1).clamp(0, 1)


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


def seeing(preprocessing: Preprocessing | None, surround: bool) -> Preprocessing | None:
    """The steps for images with or without a ``surround``: DISPLAY comes first, or is left out."""
    own = [] if preprocessing is None else [step for step in preprocessing.text.split(",") if step != DISPLAY]
    steps = [DISPLAY, *own] if surround else own
    return Preprocessing(",".join(steps)) if steps else None


def _step(text: str) -> PreprocessingStep:
    name, _, value = text.partition("=")
    if name in UNCOVERED:
        raise InputError(
            f"preprocessing by {name} is not covered: {UNCOVERED[name]}; save the images after it and audit those, or "
            "give the whole pipeline as a classifier without gradients"
        )
    if name in ("pad", DISPLAY) and not value:
        return PadToSquare() if name == "pad" else Display()
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
