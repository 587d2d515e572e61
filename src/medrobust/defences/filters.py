"""Filters of an image: fewer grey levels, JPEG, the median of its neighbours, another size."""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from medrobust.defences.input_defence import InputDefence
from medrobust.errors import InputError
from medrobust.images import Images


class BitDepth(InputDefence):
    """Rounds every pixel to 2**bits grey levels."""

    title = "Fewer grey levels"
    source = "Xu et al. 2018, arXiv:1704.01155"
    differentiable = False

    def __init__(self, bits: int = 4) -> None:
        if not 1 <= bits <= 16:
            raise InputError(f"bits must lie in 1..16, got {bits}")
        self.bits = bits

    @property
    def settings(self) -> dict[str, object]:
        return {"bits": self.bits}

    def copies(self, images: Images, draw: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        top = 2**self.bits - 1
        rounded: Tensor = (images * top).round() / top
        return rounded[None]


LUMINANCE = """
16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56  14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92  49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99
"""
"""Steps to which JPEG rounds the 8 x 8 frequencies of a block at quality 50 (ITU-T T.81, annex K)."""


class JPEG(InputDefence):
    """Saves and reads every image as JPEG.

    A change smaller than half the step of its frequency is rounded away. The second way back is through the image with
    each frequency weighted by the finest step over its own.
    """

    title = "JPEG"
    source = "Guo et al. 2018, arXiv:1711.00117"
    differentiable = False
    ways = 2

    def __init__(self, quality: int = 75) -> None:
        if not 1 <= quality <= 100:
            raise InputError(f"quality must lie in 1..100, got {quality}")
        self.quality = quality

    @property
    def settings(self) -> dict[str, object]:
        return {"quality": self.quality}

    def copies(self, images: Images, draw: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        return torch.stack([self._saved(image) for image in images.detach().cpu()]).to(images)[None]

    def followed(self, images: Images, way: int = 0) -> Images:
        if way == 0:
            return images
        side = images.shape[-2:]
        down, right = (-n % 8 for n in side)
        padded = F.pad(images, (0, right, 0, down), mode="replicate")
        shape = (*padded.shape[:2], padded.shape[2] // 8, 8, padded.shape[3] // 8, 8)
        cosines, steps = (t.to(images) for t in (_cosines(), self.steps))
        blocks = padded.view(shape).transpose(3, 4)
        kept = cosines.T @ (cosines @ blocks @ cosines.T * (steps.min() / steps)) @ cosines
        whole: Images = kept.transpose(3, 4).reshape(padded.shape)[..., : side[0], : side[1]]
        return whole

    @property
    def steps(self) -> Tensor:
        """float32 (8, 8): to which each frequency is rounded, as libjpeg scales the table by quality."""
        scale = 5000 / self.quality if self.quality < 50 else 200 - 2 * self.quality
        table = torch.tensor([float(step) for step in LUMINANCE.split()]).view(8, 8)
        return ((table * scale + 50) / 100).floor().clamp(1, 255)

    def _saved(self, image: Tensor) -> Tensor:
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(stream, "JPEG", quality=self.quality)
        read = np.asarray(Image.open(stream)).reshape(pixels.shape)
        return torch.from_numpy(read.astype(np.float32) / 255).permute(2, 0, 1)


class Median(InputDefence):
    """Every pixel becomes the median of the ``side`` x ``side`` pixels around it."""

    title = "Median filter"
    source = "Xu et al. 2018, arXiv:1704.01155"

    def __init__(self, side: int = 3) -> None:
        if side < 3 or side % 2 == 0:
            raise InputError(f"side must be an odd number of at least 3, got {side}")
        self.side = side

    @property
    def settings(self) -> dict[str, object]:
        return {"side": self.side}

    def copies(self, images: Images, draw: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        margin = self.side // 2
        around = F.pad(images, (margin,) * 4, mode="reflect").unfold(2, self.side, 1).unfold(3, self.side, 1)
        return around.flatten(4).median(-1).values[None]


class RandomResize(InputDefence):
    """Shrinks images to a random size, and puts them at a random place on black.

    share: of the side by which they shrink at most; each call draws anew.
    """

    title = "Random resizing"
    source = "Xie et al. 2018, arXiv:1711.01991"
    random = True

    def __init__(self, share: float = 0.125) -> None:
        if not 0 < share < 1:
            raise InputError(f"share must lie between 0 and 1, got {share}")
        self.share = share

    @property
    def settings(self) -> dict[str, object]:
        return {"share": self.share}

    def copies(self, images: Images, draw: torch.Generator | None = None) -> Tensor:
        height, width = images.shape[-2:]
        shrink, down, right = torch.rand(3, generator=draw, device=images.device).tolist()
        scale = 1 - self.share * shrink
        size = max(1, round(scale * height)), max(1, round(scale * width))
        top, left = round(down * (height - size[0])), round(right * (width - size[1]))
        shrunk = F.interpolate(images, size, mode="bilinear", align_corners=False)
        return F.pad(shrunk, (left, width - size[1] - left, top, height - size[0] - top))[None]


def _cosines() -> Tensor:
    """float32 (8, 8): the discrete cosine transform of 8 values, orthonormal."""
    i = torch.arange(8.0)
    rows = torch.cos((2 * i[None] + 1) * i[:, None] * math.pi / 16) / 2
    rows[0] /= math.sqrt(2)
    return rows
