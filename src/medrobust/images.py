"""Images are float32, n c h w, in [0, 1]; checks for them, and rounding to a bit depth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from medrobust.errors import InputError

Images: TypeAlias = Tensor
"""float32 (n, c, h, w) in [0, 1]; c is 1 or 3."""
PerImage: TypeAlias = Tensor
"""(n,): one number an image."""
Logits: TypeAlias = Tensor
"""float32 (n, k)."""
Labels: TypeAlias = Tensor
"""int64 (n,); for a multi-label head (n, k) of 0 and 1, and UNKNOWN where they are the truth."""

UNKNOWN = -1
"""Label of a finding of which an image tells nothing: it takes part in no loss, gap, decision or metric."""
BIT_DEPTHS = (8, 12, 16)
SPAN = 3
"""Width of what a pixel may hold, in units of what is shown, where stored values lie outside of a window: a pixel of
0 to 1/3 is shown black, one of 2/3 to 1 white. An attack has to bring it to the window's edge before it is seen."""


class Lazy(Protocol):
    """Images that are decoded when they are asked for, such as a Dataset."""

    def __len__(self) -> int: ...

    def images(self, indices: Sequence[int] | np.ndarray) -> Images:
        """Those at these positions, (m, c, h, w)."""


def renumbered(labels: Labels, classes: Sequence[str], wanted: Sequence[str]) -> Labels:
    """Labels numbered as ``classes``, numbered as ``wanted``: the same names. InputError for a name not in ``wanted``.

    labels: int64 (n,) or a single number; for a multi-label head (n, k) of 0, 1 and -1.
    """
    if tuple(classes) == tuple(wanted):
        return labels
    missing = [name for name in classes if name not in wanted]
    if missing:
        raise InputError(f"there is no class {missing[0]!r} among {', '.join(wanted)}; both need the same class names")
    place = torch.tensor([list(wanted).index(name) for name in classes], device=labels.device)
    if labels.ndim < 2:
        return torch.cat([place, place + len(wanted)])[labels]  # beyond the classes: the absence of a finding
    reordered = labels.new_full(
        (labels.shape[0], len(wanted)), UNKNOWN
    )  # nothing is known of the findings that are new
    reordered[:, place] = labels
    return reordered


def chunks(images: Images | Lazy, size: int) -> Iterator[Images]:
    """``images`` in order, ``size`` at a time; of lazy ones only so many are in memory."""
    for start in range(0, len(images), size):
        index = range(start, min(start + size, len(images)))
        yield images[start : start + size] if isinstance(images, Tensor) else images.images(index)


def check_images(images: Tensor) -> Images:
    """Return ``images`` if they are float32-able (n, c, h, w) in [0, 1]; raise InputError that names the fix."""
    if not isinstance(images, Tensor):
        raise InputError(f"images must be a torch tensor (n, c, h, w), got {type(images).__name__}")
    if images.ndim != 4:
        raise InputError(f"images must have four axes (n, c, h, w), got shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise InputError(f"images must be float32 in [0, 1], got {images.dtype}; divide 8-bit images by 255")
    if images.shape[1] not in (1, 3):
        raise InputError(f"images must have 1 or 3 channels, got {images.shape[1]} (shape {tuple(images.shape)})")
    images = images.float()
    if images.numel():
        low, high = (float(v) for v in images.detach().aminmax())
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise InputError(
                f"images must lie in [0, 1], got {low:.3f} to {high:.3f}; were they normalised already? "
                "Give pixels in [0, 1] and let Classifier(mean=…, std=…) normalise"
            )
    return images


def save_at(images: Images, bits: int, span: int = 1) -> Images:
    """The pixels that come back after saving what is shown at ``bits`` a channel (rounded to nearest, never truncated).

    span: width of what a pixel may hold, in units of what is shown.

    torchattacks truncates (100.9 becomes 100), which moves every pixel down by half a level on average.
    """
    if bits < 1 or bits > 16:
        raise InputError(f"bits must be between 1 and 16, got {bits}")
    return on_grid(images, (2**bits - 1) * span)


def on_grid(images: Images, levels: int | Tensor) -> Images:
    """The nearest pixels of the form k / levels, k a whole number; levels: of all images, or of each, int64 (n,)."""
    top = levels.to(images.device).view(-1, 1, 1, 1) if isinstance(levels, Tensor) else levels
    # float64: at 16 bits a float32 product is already uncertain in the last level
    return images.double().mul(top).round().div(top).to(images.dtype)


class Rounded(torch.autograd.Function):
    """``on_grid`` with the gradient of the identity (straight through)."""

    @staticmethod
    def forward(ctx: object, images: Images, levels: int) -> Images:  # noqa: ARG004 (of the interface)
        return on_grid(images, levels)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return gradient, None


class Attackable(NamedTuple):
    """Which pixels an attack may change and to what, where files hold less than [0, 1].

    low, high: the least and the largest pixel that files of a data set can hold. fixed: images have a surround (see
    SPAN), so that pixels at 0 and 1 stand for padding and for values beyond what a pixel may hold: they stay.
    """

    low: float = 0.0
    high: float = 1.0
    fixed: bool = False

    def movable(self, origin: Images) -> Tensor:
        """bool (n, c, h, w): the pixels that may change."""
        return (origin > 0) & (origin < 1) if self.fixed else torch.ones_like(origin, dtype=torch.bool)

    def confined(self, origin: Images, images: Images) -> Images:
        """``images`` with every pixel that may not change as in ``origin``, and the others between low and high.

        Pixels move towards ``origin`` alone. A pixel that lies outside of low and high stays or moves inwards.
        """
        inside = images.maximum(origin.clamp_max(self.low)).minimum(origin.clamp_min(self.high))
        return torch.where(self.movable(origin), inside, origin)

    def outward(self, images: Images, gradient: Images) -> Tensor:
        """bool (n, c, h, w): pixels at low or high whose gradient points beyond it, where they cannot go."""
        return ((images <= self.low) & (gradient < 0)) | ((images >= self.high) & (gradient > 0))


EVERY_PIXEL = Attackable()
"""Every pixel, from 0 to 1."""


def as_float(pixels: Tensor, levels: int | Tensor) -> Images:
    """Whole numbers (n, c, h, w) from 0 to ``levels`` (of all images, or of each, int64 (n,)) to float32 in [0, 1].

    The result is exactly on the grid: ``on_grid`` gives it back to the bit.
    """
    if pixels.is_floating_point():
        raise InputError(f"pixels must be whole numbers, got {pixels.dtype}")
    top = levels.view(-1, 1, 1, 1) if isinstance(levels, Tensor) else levels
    if pixels.dtype == torch.uint8:
        return pixels.float() / top
    return (pixels.to(torch.int32).double() / top).float()
