"""Images of another kind made more varied: what natural images lack to stand in for medical ones.

A classifier of fundus photographs calls nearly every natural image by one name, and a perturbation made from them
learns to leave that one class alone. Medical images are smooth, of few colours and often framed in black: cropped,
recoloured, smoothed and cut to a disc, natural images get all answers. (Class impressions, Mopuri et al. 2018,
arXiv:1808.01153, are another way to that, which needs gradients.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from medrobust import seeds
from medrobust.errors import InputError
from medrobust.images import Images, Lazy, check_images

BLURS = (0, 1, 2, 4)
"""Half sides in pixels of the box that smooths; as often one as another."""


class Varied:
    """n variants of ``images``, each image as often as any other; every one keyed by (seed, position), drawn when read.

    A variant is a random crop of at least a third of the side (every second one), another colour and contrast (four of
    five), smoothed by a box of 1, 3, 5 or 9 pixels, and cut to a disc on black (two of three).
    """

    def __init__(self, images: Images | Lazy, n: int, seed: int = 0) -> None:
        if n < 1 or not len(images):
            raise InputError(f"variants need at least one image, and n of at least 1; got {len(images)} and {n}")
        self.source, self.n, self.seed = images, n, seed
        self.name = f"varied {getattr(images, 'name', 'images')}"

    def __len__(self) -> int:
        return self.n

    def images(self, indices: Sequence[int] | np.ndarray) -> Images:
        """float32 (m, c, h, w) in [0, 1] at these positions."""
        places = [int(i) for i in indices]
        return torch.cat([self._variant(i) for i in places])

    def _variant(self, place: int) -> Images:
        which = [place % len(self.source)]
        image = self.source[which] if isinstance(self.source, torch.Tensor) else self.source.images(which)
        image, draw = check_images(image), seeds.generator(self.seed, "universal/varied", place)
        if draw.random() < 1 / 2:
            image = _cropped(image, draw)
        if draw.random() < 4 / 5:
            image = _recoloured(image, draw)
        if half := int(draw.choice(BLURS)):
            wide = F.pad(image, (half,) * 4, mode="reflect" if half < min(image.shape[2:]) else "replicate")
            image = F.avg_pool2d(wide, 2 * half + 1, 1)
        if draw.random() < 2 / 3:
            image = image * _disc(*image.shape[2:])
        return image.clamp(0, 1)


def _cropped(image: Images, draw: np.random.Generator) -> Images:
    _, _, h, w = image.shape
    share = draw.uniform(1 / 3, 1)
    high, wide = max(1, int(share * h)), max(1, int(share * w))
    top, left = int(draw.integers(h - high + 1)), int(draw.integers(w - wide + 1))
    part = image[..., top : top + high, left : left + wide]
    return F.interpolate(part, (h, w), mode="bilinear", align_corners=False)


def _recoloured(image: Images, draw: np.random.Generator) -> Images:
    """Another mean for each channel, and another contrast for all of them."""
    c = image.shape[1]
    mean = torch.from_numpy(draw.uniform(0.05, 0.8, (1, c, 1, 1)).astype(np.float32))
    return mean + draw.uniform(0.1, 0.8) * (image - image.mean((2, 3), keepdim=True))


def _disc(h: int, w: int) -> torch.Tensor:
    down, across = torch.linspace(-1, 1, h)[:, None], torch.linspace(-1, 1, w)[None]
    return (down.square() + across.square()) < 0.95
