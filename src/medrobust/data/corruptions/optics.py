"""Corruptions by optics, movement and storage: sharpness, resolution, grey levels, position."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image as Picture
from torch import Tensor

from medrobust.data.corruptions.corruption import Image, at_128, side


def blur(image: Image, sigma: float, _: np.random.Generator) -> Image:
    """Gaussian blur; sigma in pixels at 128 px."""
    sigma *= at_128(image)
    line = _gaussian(sigma, max(1, min(int(np.ceil(3 * sigma)), side(image) - 1)))
    return _convolve(_convolve(image, line[None, :]), line[:, None])


@lru_cache(maxsize=16)
def _gaussian(sigma: float, reach: int) -> Tensor:
    """float32 (2 reach + 1,): integrated over each pixel, right for a sigma below one pixel too."""
    ticks = torch.arange(-reach, reach + 1, dtype=torch.float64)
    edges = torch.special.ndtr((torch.stack([ticks - 0.5, ticks + 0.5])) / sigma)
    line = (edges[1] - edges[0]).float()
    normalised: Tensor = line / line.sum()
    return normalised


def motion(image: Image, length: float, rng: np.random.Generator) -> Image:
    """The patient or the camera moved along a line at an angle of its own; length in pixels at 128 px."""
    angle = rng.uniform(0, np.pi)
    length *= at_128(image)
    reach = max(1, min(int(np.ceil(length / 2)), side(image) - 1))
    kernel = np.zeros((2 * reach + 3, 2 * reach + 3))
    along = np.linspace(-length / 2, length / 2, 8 * reach + 1)
    x, y = reach + 1 + along * np.cos(angle), reach + 1 + along * np.sin(angle)
    left, top = x.astype(int), y.astype(int)
    right, down = x - left, y - top  # shared among the four pixels around the point
    for i, j, weight in (
        (0, 0, (1 - down) * (1 - right)),
        (0, 1, (1 - down) * right),
        (1, 0, down * (1 - right)),
        (1, 1, down * right),
    ):
        np.add.at(kernel, (top + i, left + j), weight)
    return _convolve(image, torch.from_numpy(kernel / kernel.sum()).float())


def downsample(image: Image, factor: float, _: np.random.Generator) -> Image:
    """Stored at 1/factor of its side, and enlarged again."""
    small = [max(2, round(length / factor)) for length in image.shape[-2:]]
    shrunk = F.interpolate(image[None], size=small, mode="bilinear", antialias=True)
    return F.interpolate(shrunk, size=image.shape[-2:], mode="bicubic", align_corners=False)[0]


def jpeg(image: Image, quality: float, _: np.random.Generator) -> Image:
    """Saved as a JPEG of this quality (8 bits a channel) and read again."""
    pixels = (image * 255).round().to(torch.uint8)
    pixels = pixels[0] if image.shape[0] == 1 else pixels.permute(1, 2, 0)
    stream = io.BytesIO()
    Picture.fromarray(pixels.contiguous().numpy()).save(stream, "JPEG", quality=int(quality))
    stream.seek(0)
    with Picture.open(stream) as picture:
        back = torch.from_numpy(np.array(picture)).float() / 255
    return back[None] if image.shape[0] == 1 else back.permute(2, 0, 1)


def grey_levels(image: Image, levels: float, _: np.random.Generator) -> Image:
    """Only so many levels a channel are left."""
    return (image * (levels - 1)).round() / (levels - 1)


def position(image: Image, degrees: float, rng: np.random.Generator) -> Image:
    """Turned by so many degrees to a side of its own and moved by half a percent of the side a degree."""
    side, direction = rng.choice((-1.0, 1.0)), rng.uniform(0, 2 * np.pi)
    turn, shift = np.deg2rad(degrees) * side, 0.01 * degrees  # affine coordinates span 2 a side
    height, width = image.shape[-2:]
    rows = [
        [np.cos(turn), -np.sin(turn) * height / width, shift * np.cos(direction)],
        [np.sin(turn) * width / height, np.cos(turn), shift * np.sin(direction)],
    ]
    where = F.affine_grid(torch.tensor([rows], dtype=torch.float32), [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None], where, mode="bilinear", padding_mode="border", align_corners=False)[0]


def _convolve(image: Image, kernel: Tensor) -> Image:
    """Each channel with one kernel (odd sides); the border is repeated outwards."""
    down, right = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = F.pad(image[:, None], (right, right, down, down), mode="replicate")
    return F.conv2d(padded, kernel[None, None])[:, 0]
