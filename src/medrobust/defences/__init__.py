"""Defences at the input: what is done to an image before a classifier reads it, without training."""

from __future__ import annotations

from collections.abc import Callable

from medrobust.defences.copies import Flips, NoisyVotes
from medrobust.defences.filters import JPEG, BitDepth, Median, RandomResize
from medrobust.defences.input_defence import InputDefence, defended

# Read by the command line only; in Python, use the class.
INPUT_DEFENCES: dict[str, Callable[..., InputDefence]] = {
    "bits": BitDepth,
    "jpeg": JPEG,
    "median": Median,
    "resize": RandomResize,
    "noise": NoisyVotes,
    "flips": Flips,
}

__all__ = [
    "INPUT_DEFENCES",
    "JPEG",
    "BitDepth",
    "Flips",
    "InputDefence",
    "Median",
    "NoisyVotes",
    "RandomResize",
    "defended",
]
