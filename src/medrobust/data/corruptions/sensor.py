"""Corruptions by detectors and processing: noise, exposure, tone, colour, dead lines."""

from __future__ import annotations

import math

import numpy as np
import torch

from medrobust.data.corruptions.corruption import Image


def noise(image: Image, deviation: float, rng: np.random.Generator) -> Image:
    """Gaussian noise of the read-out; deviation as a fraction of the pixel range."""
    return image + deviation * _normal(image, rng)


def shot(image: Image, photons: float, rng: np.random.Generator) -> Image:
    """Quantum noise of a low dose: white stands for so many photons a pixel (normal approximation of Poisson's)."""
    noisy: Image = image + (image / photons).sqrt() * _normal(image, rng)
    return noisy


def exposure(image: Image, stops: float, rng: np.random.Generator) -> Image:
    """Over- or under-exposed (drawn for each image) by so many factors of two; what is too bright is lost."""
    return image * math.pow(2.0, stops * float(rng.choice((-1, 1))))


def gamma(image: Image, change: float, rng: np.random.Generator) -> Image:
    """Another tone curve: pixel to the power e^change or e^-change (drawn for each image)."""
    return image ** float(np.exp(change * rng.choice((-1, 1))))


def contrast(image: Image, loss: float, _: np.random.Generator) -> Image:
    """This share of the contrast around the image's mean is lost."""
    return image + loss * (image.mean() - image)


def colour(image: Image, shift: float, rng: np.random.Generator) -> Image:
    """Another white balance: the logarithms of the channels' gains move by so much along a direction of its own."""
    direction = rng.standard_normal(3)
    direction -= direction.mean()  # brightness is the business of exposure
    direction /= np.linalg.norm(direction)
    return image * torch.from_numpy(np.exp(shift * direction)).float().view(3, 1, 1)


def dead_lines(image: Image, share: float, rng: np.random.Generator) -> Image:
    """This share of the detector's columns reads nothing; what is left of a column of it is dimmed instead."""
    width = image.shape[-1]
    rank = torch.from_numpy(rng.permutation(width)).float()
    return image * (1 - (share * width - rank).clamp(0, 1))


def _normal(image: Image, rng: np.random.Generator) -> Image:
    return torch.from_numpy(rng.standard_normal(tuple(image.shape), dtype=np.float32))
