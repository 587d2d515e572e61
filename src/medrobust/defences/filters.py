"""Filters of an image: fewer grey levels, JPEG, the median of its neighbours, another size."""

from __future__ import annotations

import io

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


class JPEG(InputDefence):
    """Saves and reads every image as JPEG."""

    title = "JPEG"
    source = "Guo et al. 2018, arXiv:1711.00117"
    differentiable = False

    def __init__(self, quality: int = 75) -> None:
        if not 1 <= quality <= 100:
            raise InputError(f"quality must lie in 1..100, got {quality}")
        self.quality = quality

    @property
    def settings(self) -> dict[str, object]:
        return {"quality": self.quality}

    def copies(self, images: Images, draw: torch.Generator | None = None) -> Tensor:  # noqa: ARG002
        return torch.stack([self._saved(image) for image in images.detach().cpu()]).to(images)[None]

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
