"""What the numbers were made with."""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from importlib import metadata

NAMES = ("medrobust", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Version of Python and of every library that a result may depend on."""
    return {"python": platform.python_version(), **_installed()}


@functools.cache
def _installed() -> Mapping[str, str]:
    """Read once: the metadata of eight packages takes as long as a small report's tables."""
    return {name: metadata.version(name) for name in NAMES}
