"""Networks by name, their pretrained weights, and checkpoints that hold no code."""

from __future__ import annotations

from medrobust.models.architectures import ALIASES, OWN, build
from medrobust.models.checkpoint import read, write
from medrobust.models.pretrained import Pretrained, normalisation

__all__ = ["ALIASES", "OWN", "Pretrained", "build", "normalisation", "read", "write"]
