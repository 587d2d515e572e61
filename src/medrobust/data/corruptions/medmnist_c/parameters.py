"""The parameters of MedMNIST-C by data set, and the balanced errors of AlexNet by which its errors are divided.

Numbers of medmnistc 0.1 (Apache-2.0): its registry, whose first five entries are the severities, and its baselines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

import medrobust.data.corruptions.medmnist_c.changes as changes
from medrobust.data.corruptions.corruption import Amount, Corruption
from medrobust.data.corruptions.medmnist_c.balanced_error import Baseline
from medrobust.errors import InputError

SIDE = 224
"""Pixels a side of the images that parameters and baselines are for."""

Amounts = tuple[Amount, Amount, Amount, Amount, Amount]


class MedMnistCorruption(NamedTuple):
    title: str
    change: Callable[[changes.Pixels, Any, np.random.Generator], changes.Pixels]


KINDS = {
    "pixelate": MedMnistCorruption("coarse pixels", changes.pixelate),
    "jpeg_compression": MedMnistCorruption("JPEG", changes.jpeg),
    "gaussian_noise": MedMnistCorruption("Gaussian noise", changes.gaussian_noise),
    "speckle_noise": MedMnistCorruption("speckle noise", changes.speckle_noise),
    "impulse_noise": MedMnistCorruption("impulse noise", changes.impulse_noise),
    "shot_noise": MedMnistCorruption("shot noise", changes.shot_noise),
    "defocus_blur": MedMnistCorruption("out of focus", changes.defocus_blur),
    "motion_blur": MedMnistCorruption("motion blur", changes.motion_blur),
    "zoom_blur": MedMnistCorruption("zoom blur", changes.zoom_blur),
    "gaussian_blur": MedMnistCorruption("Gaussian blur", changes.gaussian_blur),
    "brightness_up": MedMnistCorruption("brighter", changes.brightness),
    "brightness_down": MedMnistCorruption("darker", changes.brightness),
    "contrast_up": MedMnistCorruption("higher contrast", changes.contrast),
    "contrast_down": MedMnistCorruption("lower contrast", changes.contrast),
    "saturate": MedMnistCorruption("saturated colours", changes.saturate),
    "gamma_corr_up": MedMnistCorruption("gamma above 1", changes.gamma),
    "gamma_corr_down": MedMnistCorruption("gamma below 1", changes.gamma),
    "black_corner": MedMnistCorruption("black corners", changes.black_corner),
    "bubble": MedMnistCorruption("bubbles", changes.bubble),
}
OF_COLOUR = ("saturate",)
LEFT_OUT = {"pathmnist": "stain_deposit", "bloodmnist": "stain_deposit", "dermamnist": "characters"}
"""By data set the corruption that is not made here: it is drawn from images or a font that come with the package."""

_JPEG: Amounts = (50, 30, 15, 10, 7)
_TENTHS_UP: Amounts = (1.1, 1.2, 1.3, 1.4, 1.5)
_TENTHS_DOWN: Amounts = (0.9, 0.8, 0.7, 0.6, 0.5)
_CONTRAST_UP: Amounts = (1.1, 1.2, 1.3, 1.4, 1.6)
_DOWN: Amounts = (0.9, 0.8, 0.7, 0.6, 0.4)
_NOISE: Amounts = (0.04, 0.08, 0.12, 0.18, 0.26)
_SPECKLE: Amounts = (0.05, 0.15, 0.2, 0.35, 0.45)
_IMPULSE: Amounts = (0.01, 0.03, 0.06, 0.09, 0.17)
_SHOT: Amounts = (60, 25, 18, 10, 5)
_COARSE: Amounts = (0.3, 0.25, 0.2, 0.15, 0.1)
_ORGAN: Mapping[str, Amounts] = {
    "pixelate": (0.7, 0.6, 0.5, 0.4, 0.35),
    "jpeg_compression": _JPEG,
    "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
    "speckle_noise": (0.05, 0.1, 0.2, 0.3, 0.4),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.08),
    "shot_noise": (200, 100, 50, 25, 15),
    "gaussian_blur": (11, 13, 15, 17, 21),
    "brightness_up": (1.2, 1.3, 1.4, 1.5, 1.6),
    "brightness_down": (0.8, 0.75, 0.7, 0.65, 0.6),
    "contrast_up": (1.3, 1.4, 1.6, 1.7, 1.8),
    "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
    "gamma_corr_up": (1.3, 1.4, 1.6, 1.8, 2.0),
    "gamma_corr_down": _DOWN,
}
_CHEST: Mapping[str, Amounts] = {
    "pixelate": _COARSE,
    "jpeg_compression": _JPEG,
    "gaussian_noise": _NOISE,
    "speckle_noise": _SPECKLE,
    "impulse_noise": _IMPULSE,
    "shot_noise": _SHOT,
    "gaussian_blur": (3, 5, 7, 9, 11),
    "brightness_up": _TENTHS_UP,
    "brightness_down": _TENTHS_DOWN,
    "contrast_up": _CONTRAST_UP,
    "contrast_down": _DOWN,
    "gamma_corr_up": _CONTRAST_UP,
    "gamma_corr_down": _DOWN,
}
SETS: Mapping[str, Mapping[str, Amounts]] = {
    "pathmnist": {
        "pixelate": (0.8, 0.6, 0.4, 0.3, 0.25),
        "jpeg_compression": _JPEG,
        "defocus_blur": ((3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2), (7, 0.3)),
        "motion_blur": ((5, 5), (10, 5), (15, 5), (15, 8), (15, 12)),
        "brightness_up": (1.1, 1.15, 1.2, 1.22, 1.25),
        "brightness_down": (0.85, 0.8, 0.75, 0.72, 0.7),
        "contrast_up": _CONTRAST_UP,
        "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
        "saturate": (0.05, 0.1, 0.15, 0.2, 0.25),
        "bubble": ((7, 15), (10, 15), (12, 15), (15, 20), (17, 25)),
    },
    "bloodmnist": {
        "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": _JPEG,
        "defocus_blur": ((2, 0.01), (3, 0.1), (4, 0.1), (5, 0.1), (6, 0.1)),
        "motion_blur": ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9)),
        "brightness_up": (1.1, 1.2, 1.3, 1.35, 1.4),
        "brightness_down": _TENTHS_DOWN,
        "contrast_up": (1.1, 1.15, 1.2, 1.25, 1.3),
        "contrast_down": _TENTHS_DOWN,
        "saturate": (0.05, 0.1, 0.15, 0.17, 0.2),
        "bubble": ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12)),
    },
    "dermamnist": {
        "pixelate": (0.7, 0.5, 0.4, 0.3, 0.25),
        "jpeg_compression": (30, 20, 15, 10, 7),
        "gaussian_noise": _NOISE,
        "speckle_noise": _SPECKLE,
        "impulse_noise": _IMPULSE,
        "shot_noise": _SHOT,
        "defocus_blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
        "motion_blur": ((10, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "brightness_up": _TENTHS_UP,
        "brightness_down": _TENTHS_DOWN,
        "contrast_up": _CONTRAST_UP,
        "contrast_down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "black_corner": (1.1, 1.05, 1.0, 0.9, 0.95),
    },
    "retinamnist": {
        "pixelate": (0.8, 0.6, 0.5, 0.4, 0.35),
        "jpeg_compression": (30, 25, 20, 10, 5),
        "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
        "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
        "defocus_blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
        "motion_blur": ((8, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
        "brightness_down": _TENTHS_DOWN,
        "contrast_down": _DOWN,
    },
    "tissuemnist": {
        "pixelate": (0.4, 0.3, 0.2, 0.15, 0.1),
        "jpeg_compression": (25, 20, 15, 10, 7),
        "impulse_noise": (0.01, 0.015, 0.02, 0.025, 0.03),
        "gaussian_blur": (13, 15, 17, 21, 25),
        "brightness_up": (1.3, 1.4, 1.5, 1.6, 1.7),
        "brightness_down": (0.8, 0.7, 0.6, 0.5, 0.4),
        "contrast_up": _CONTRAST_UP,
        "contrast_down": _DOWN,
    },
    "octmnist": {
        "pixelate": _COARSE,
        "jpeg_compression": (30, 15, 10, 7, 5),
        "speckle_noise": (0.15, 0.3, 0.4, 0.5, 0.6),
        "defocus_blur": ((0.5, 0.6), (1, 0.5), (1.5, 0.1), (2.0, 0.5), (2.5, 0.1)),
        "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "contrast_down": (0.6, 0.4, 0.3, 0.2, 0.15),
    },
    "breastmnist": {
        "pixelate": _COARSE,
        "jpeg_compression": _JPEG,
        "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
        "motion_blur": ((5, 5), (9, 7), (9, 10), (13, 10), (17, 12)),
        "brightness_up": (1.4, 1.5, 1.6, 1.8, 2.0),
        "brightness_down": (0.55, 0.5, 0.45, 0.4, 0.3),
        "contrast_down": _DOWN,
    },
    "chestmnist": _CHEST,
    "pneumoniamnist": {
        **_CHEST,
        "pixelate": (0.8, 0.7, 0.6, 0.5, 0.4),
        "gaussian_noise": (0.04, 0.05, 0.06, 0.07, 0.08),
        "speckle_noise": (0.05, 0.07, 0.1, 0.15, 0.2),
        "impulse_noise": (0.005, 0.01, 0.013, 0.017, 0.02),
        "shot_noise": (300, 200, 150, 100, 80),
    },
    "organamnist": _ORGAN,
    "organcmnist": _ORGAN,
    "organsmnist": _ORGAN,
}
"""By data set and corruption, what ``changes`` takes at the severities 1 to 5."""


def corruptions(name: str) -> dict[str, Corruption]:
    """The corruptions of a data set, without those of LEFT_OUT. InputError for a data set that is not of MedMNIST-C."""
    if name not in SETS:
        raise InputError(f"MedMNIST-C has no data set {name!r}; choose from {', '.join(SETS)}")
    return {
        kind: Corruption(KINDS[kind].title, changes.on_pixels(KINDS[kind].change), amounts, colour=kind in OF_COLOUR)
        for kind, amounts in SETS[name].items()
    }


_ERRORS = """
pathmnist 88393 209342 247093 462126 368907 415516 281169 233893 137187 334114 108183
bloodmnist 18369 59756 139762 223998 184519 69463 79008 52154 79661 34786 128988
dermamnist 398578 510512 477163 770161 768879 799555 839155 700832 626641 527767 447399 577297 430415 539821 759146
retinamnist 558206 601700 679522 704083 613526 688290 707576 584479 609288
tissuemnist 391779 492729 508070 797087 480514 461827 519819 502623 536934
octmnist 202000 312400 296400 386000 308400 489200 419600
breastmnist 145363 461278 298622 387093 259023 319799 211278 158647
chestmnist 283906 448951 345757 476883 456879 485536 492697 317680 299372 297115 287510 295474 287462 289164
pneumoniamnist 100855 221026 279829 441453 345726 458120 410684 273077 146496 278205 95299 237436 96068 166410
organamnist 50054 75897 102332 558868 500898 600512 570455 233407 147635 264645 109779 126842 103600 105771
organcmnist 75968 121613 107545 573654 513096 599778 549248 316896 160118 232427 99918 153274 142642 123909
organsmnist 243005 312594 269970 588912 545010 601011 551912 446665 359850 359287 287170 312824 302532 311602
"""
"""A data set a line, in millionths: the error on untouched images, those of the corruptions in the order of SETS."""


def _baseline(name: str, clean: str, *corrupted: str) -> Baseline:
    return Baseline(int(clean) / 1e6, {kind: int(n) / 1e6 for kind, n in zip(SETS[name], corrupted, strict=True)})


ALEXNET: Mapping[str, Baseline] = {
    name: _baseline(name, *numbers) for name, *numbers in map(str.split, _ERRORS.strip().splitlines())
}
"""AlexNet's balanced errors at 224 pixels, as published with the package."""
