"""What the numbers were made with."""

from __future__ import annotations

import platform
from importlib import metadata

NAMES = ("medrobust", "torch", "torchvision", "timm", "numpy", "scipy", "scikit-learn", "pillow")


def versions() -> dict[str, str]:
    """Version of Python and of every library that a result may depend on."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in NAMES}}
