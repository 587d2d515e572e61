"""What each corruption of MedMNIST-C does to the pixels of an 8-bit image with three channels.

Grey images are corrupted as three equal channels and turned into grey afterwards, as theirs are: noise is drawn for
each channel. Products are cut, not rounded, to whole levels, as theirs are.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from PIL import ImageDraw, ImageEnhance
from scipy import ndimage

from medrobust.data.corruptions.corruption import Change, Image

Pixels = np.ndarray
"""uint8 (h, w, 3)."""


def on_pixels(change: Callable[[Pixels, Any, np.random.Generator], Pixels]) -> Change:
    """A change of pixels as one of images in [0, 1], which are rounded to 8 bits."""

    def changed(image: Image, amount: Any, rng: np.random.Generator) -> Image:
        whole = (image * 255).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()
        out = change(whole, amount, rng)
        if image.shape[0] == 1:
            return torch.from_numpy(np.array(Picture.fromarray(out).convert("L")))[None].float() / 255
        return torch.from_numpy(np.ascontiguousarray(out)).permute(2, 0, 1).float() / 255

    return changed


def _cut(values: np.ndarray) -> Pixels:
    """Pixels of values in [0, 1], which are clipped."""
    return np.asarray((np.clip(values, 0, 1) * 255).astype(np.uint8))


def pixelate(pixels: Pixels, factor: float, _: np.random.Generator) -> Pixels:
    """Averaged to ``factor`` of the side, and enlarged without interpolation."""
    size = pixels.shape[1], pixels.shape[0]
    small = max(1, int(size[0] * factor)), max(1, int(size[1] * factor))
    picture = Picture.fromarray(pixels).resize(small, Picture.Resampling.BOX)
    return np.array(picture.resize(size, Picture.Resampling.BOX))


def jpeg(pixels: Pixels, quality: float, _: np.random.Generator) -> Pixels:
    stream = io.BytesIO()
    Picture.fromarray(pixels).save(stream, "JPEG", quality=int(quality))
    with Picture.open(stream) as picture:
        return np.array(picture)


def gaussian_noise(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    return _cut(pixels / 255 + rng.normal(size=pixels.shape, scale=deviation))


def speckle_noise(pixels: Pixels, deviation: float, rng: np.random.Generator) -> Pixels:
    values = pixels / 255
    return _cut(values + values * rng.normal(size=pixels.shape, scale=deviation))


def impulse_noise(pixels: Pixels, share: float, rng: np.random.Generator) -> Pixels:
    """So many of the values are set to 0 or 1, each as often."""
    changed, white = rng.random(pixels.shape) <= share, rng.random(pixels.shape) <= 0.5
    return _cut(np.where(changed, white.astype(float), pixels / 255))


def shot_noise(pixels: Pixels, photons: float, rng: np.random.Generator) -> Pixels:
    return _cut(rng.poisson(pixels / 255 * photons) / photons)


def defocus_blur(pixels: Pixels, amount: tuple[float, float], _: np.random.Generator) -> Pixels:
    """Convolved with a disk. amount: its radius, and the deviation of the Gaussian that softens its edge."""
    radius, soft = amount
    reach = 8 if radius <= 8 else radius
    ticks = np.arange(-reach, reach + 1)
    disk = (ticks[:, None] ** 2 + ticks**2 <= radius**2).astype(np.float32)
    taps = np.arange(3 if radius <= 8 else 5) - (1 if radius <= 8 else 2)
    line = np.exp(-(taps**2) / (2 * soft**2))
    kernel = disk / disk.sum()
    for axis in (0, 1):
        kernel = ndimage.correlate1d(kernel, line / line.sum(), axis=axis, mode="mirror")
    return _cut(ndimage.correlate(pixels / 255, kernel[..., None].astype(float), mode="mirror"))


def motion_blur(pixels: Pixels, amount: tuple[float, float], rng: np.random.Generator) -> Pixels:
    """ImageMagick's: a half Gaussian along a line of -45 to 45 degrees. amount: radius and deviation in pixels.

    The line's points are whole pixels; the border is repeated outwards. ImageMagick 6.9 computes in 16 bits and
    cuts the result to 8 when it writes a PNG file.
    """
    return along_line(pixels, *amount, angle=float(rng.uniform(-45, 45)))


def along_line(pixels: Pixels, radius: float, sigma: float, angle: float) -> Pixels:
    """``motion_blur`` at an angle in degrees."""
    steps = np.arange(2 * math.ceil(radius) + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    turn = math.radians(angle)
    right = np.ceil(steps * math.cos(turn) - 0.5).astype(int)
    down = np.ceil(steps * math.sin(turn) - 0.5).astype(int)
    height, width = pixels.shape[:2]
    values = np.zeros(pixels.shape)
    for weight, dx, dy in zip(weights / weights.sum(), right, down, strict=True):
        ys = np.clip(np.arange(height) + dy, 0, height - 1)
        xs = np.clip(np.arange(width) + dx, 0, width - 1)
        values += weight * pixels[ys[:, None], xs]
    return (np.floor(values * 257 + 0.5) // 257).astype(np.uint8)


def zoom_blur(pixels: Pixels, amount: tuple[float, float], _: np.random.Generator) -> Pixels:
    """The mean of the image and of enlarged copies. amount: end and step of the factors, which begin at 1."""
    values = (pixels / 255).astype(np.float32)
    factors = np.arange(1, *amount)
    total = values.copy()
    for factor in factors:
        total += _enlarged(values, float(factor))
    return _cut(total / (len(factors) + 1))


def _enlarged(values: np.ndarray, factor: float) -> np.ndarray:
    """The middle of the image, enlarged linearly to its size."""
    sides = values.shape[:2]
    parts = [math.ceil(side / factor) for side in sides]
    top, left = ((side - part) // 2 for side, part in zip(sides, parts, strict=True))
    large = ndimage.zoom(values[top : top + parts[0], left : left + parts[1]], (factor, factor, 1), order=1)
    top, left = ((a - b) // 2 for a, b in zip(large.shape[:2], sides, strict=True))
    middle: np.ndarray = large[top : top + sides[0], left : left + sides[1]]
    return middle


def gaussian_blur(pixels: Pixels, taps: float, _: np.random.Generator) -> Pixels:
    """A kernel of so many pixels, an odd number, with a deviation of 0.15 times that and 0.35."""
    from torchvision.transforms import functional as transforms

    return np.array(transforms.gaussian_blur(Picture.fromarray(pixels), kernel_size=int(taps)))


def brightness(pixels: Pixels, factor: float, _: np.random.Generator) -> Pixels:
    return np.array(ImageEnhance.Brightness(Picture.fromarray(pixels)).enhance(factor))


def contrast(pixels: Pixels, factor: float, _: np.random.Generator) -> Pixels:
    return np.array(ImageEnhance.Contrast(Picture.fromarray(pixels)).enhance(factor))


def gamma(pixels: Pixels, power: float, _: np.random.Generator) -> Pixels:
    from torchvision.transforms import functional as transforms

    return np.array(transforms.adjust_gamma(Picture.fromarray(pixels), power))


def saturate(pixels: Pixels, more: float, _: np.random.Generator) -> Pixels:
    """The saturation of HSV is raised by so much."""
    from skimage import color

    hsv = color.rgb2hsv(pixels / 255)
    hsv[..., 1] = np.clip(hsv[..., 1] + more, 0, 1)
    return _cut(color.hsv2rgb(hsv))


def black_corner(pixels: Pixels, factor: float, _: np.random.Generator) -> Pixels:
    """Black outside a circle of ``factor`` times the largest radius that lies inside the image."""
    height, width = pixels.shape[:2]
    x, y = width // 2, height // 2
    radius = int(min(x, y, width - x, height - y) * factor)
    inside = (np.arange(height)[:, None] - y) ** 2 + (np.arange(width) - x) ** 2 <= radius**2
    return np.where(inside[..., None], pixels, np.uint8(0))


def bubble(pixels: Pixels, amount: tuple[float, float], rng: np.random.Generator) -> Pixels:
    """Translucent white disks. amount: their largest radius in pixels, and how many they are at most (at least 7)."""
    largest, most = (int(value) for value in amount)
    picture = Picture.fromarray(pixels)
    disks = Picture.new("RGBA", picture.size, (255, 255, 255, 0))
    draw = ImageDraw.Draw(disks)
    for _ in range(int(rng.integers(7, most, endpoint=True))):
        radius = int(rng.integers(3, largest, endpoint=True))
        # a disk wider than a small image lies in its middle
        x, y = (
            int(rng.integers(min(radius, length // 2), max(length - radius, length // 2), endpoint=True))
            for length in picture.size
        )
        for reach, opaque in ((radius + 2, 130), (radius, 100)):
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), fill=(255, 255, 255, opaque))
    picture.paste(disks, (0, 0), disks)
    return np.array(picture)
