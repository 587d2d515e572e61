"""How much one input may ask for, checked before memory is taken: a small file can describe a very large one.

Each limit has a default that no ordinary study reaches and an environment variable that changes it, so that it also
holds in worker processes. ``docs/limits.md`` lists them.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from medrobust.errors import InputError


class Limit(NamedTuple):
    """A limit: its environment variable, its default, its unit, and what it is for."""

    variable: str
    default: int
    unit: str
    meaning: str


IMAGE_PIXELS = Limit(
    "MEDROBUST_MAX_IMAGE_PIXELS", 100_000_000, "pixels", "one image; of several frames the first is read"
)
PIXELS_PER_BYTE = Limit(
    "MEDROBUST_MAX_PIXELS_PER_BYTE", 10_000, "pixels per byte", "one image file of more than 1,048,576 pixels"
)
FRAMES = Limit("MEDROBUST_MAX_FRAMES", 10_000, "frames", "one DICOM or NIfTI file of which each frame is read")
IMAGE_BYTES = Limit("MEDROBUST_MAX_IMAGE_BYTES", 2 * 2**30, "bytes", "one image file")
TABLE_BYTES = Limit("MEDROBUST_MAX_TABLE_BYTES", 512 * 2**20, "bytes", "one table of images (csv:)")
UNPACKED_BYTES = Limit("MEDROBUST_MAX_UNPACKED_BYTES", 64 * 2**30, "bytes", "the arrays of one .npz that are read")
CLASSES = Limit("MEDROBUST_MAX_CLASSES", 10_000, "classes", "the classes of a data set or a classifier")
JSON_BYTES = Limit("MEDROBUST_MAX_JSON_BYTES", 256 * 2**20, "bytes", "one JSON file")
NAME = Limit("MEDROBUST_MAX_NAME", 500, "characters", "the name of a class or a patient")
CELL_CHARACTERS = Limit("MEDROBUST_MAX_CELL_CHARACTERS", 100_000, "characters", "one cell of a table")
PARAMETERS = Limit("MEDROBUST_MAX_PARAMETERS", 500_000_000, "parameters", "a network that a file names")
MODULES = Limit("MEDROBUST_MAX_MODULES", 20_000, "modules", "a network that a file names")

LIMITS = (
    IMAGE_PIXELS,
    PIXELS_PER_BYTE,
    FRAMES,
    IMAGE_BYTES,
    TABLE_BYTES,
    CELL_CHARACTERS,
    CLASSES,
    NAME,
    UNPACKED_BYTES,
    JSON_BYTES,
    PARAMETERS,
    MODULES,
)
"""Every limit; the table of docs/limits.md is made from this."""


def value(limit: Limit) -> int:
    """The limit in force. InputError where its environment variable is not a positive whole number."""
    text = os.environ.get(limit.variable)
    if text is None:
        return limit.default
    try:
        number = int(float(text))
    except (ValueError, OverflowError):
        number = 0
    if number < 1:
        raise InputError(f"{limit.variable} must be a positive number of {limit.unit}, got {text[:40]!r}")
    return number


def check(limit: Limit, amount: int, what: str) -> None:
    """Raise InputError if ``amount`` is over the limit; ``what`` names the input, as in "x.png"."""
    allowed = value(limit)
    if amount > allowed:
        raise InputError(
            f"{what} has {amount:,} {limit.unit}, more than the limit of {allowed:,}; "
            f"if you trust it, raise the limit: {limit.variable}={amount}"
        )
