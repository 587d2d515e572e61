"""How steps shrink on the way."""

from __future__ import annotations

import math


def cosine(done: int, total: int, floor: float = 0.05) -> float:
    """1 at the first of ``total`` steps, ``floor`` at the last: large steps find the way, small ones the place."""
    return max(floor, 0.5 * (1 + math.cos(math.pi * done / max(total, 1))))
