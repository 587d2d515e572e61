"""Randomness keyed by (seed, purpose, image id), never drawn from a global stream.

So that an image's result does not depend on its batch-mates, its order, its shard or the worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Id = int | str


def generator(seed: int, purpose: str, *ids: Id) -> np.random.Generator:
    """A generator of its own for (seed, purpose, ids).

    Philox is counter-based and takes a 128-bit key, where torch's CPU generator keeps 32 bits of its seed
    (two of 100,000 images would share their noise).
    """
    # numpy's and torch's integers name the same image as Python's; the text "3" names another
    names = (f"str:{i}" if isinstance(i, str) else f"int:{int(i)}" for i in ids)
    text = "\x1f".join([str(int(seed)), purpose, *names])
    key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")
    return np.random.Generator(np.random.Philox(key=key))


def uniform(seed: int, purpose: str, ids: Sequence[Id], shape: Sequence[int]) -> Tensor:
    """float32 (n, *shape), uniform in [-1, 1), one independent draw an id."""
    draws = [generator(seed, purpose, i).random(tuple(shape), dtype=np.float32) for i in ids]
    return _stack(draws, shape).mul_(2).sub_(1)


def normal(seed: int, purpose: str, ids: Sequence[Id], shape: Sequence[int]) -> Tensor:
    """float32 (n, *shape), standard normal, one independent draw an id."""
    return _stack([generator(seed, purpose, i).standard_normal(tuple(shape), np.float32) for i in ids], shape)


def signs(seed: int, purpose: str, ids: Sequence[Id], shape: Sequence[int]) -> Tensor:
    """float32 (n, *shape) of -1 and +1 with equal odds: the strongest random noise of a given Linf norm."""
    draws = [generator(seed, purpose, i).integers(0, 2, tuple(shape), np.int8) for i in ids]
    return _stack(draws, shape).mul_(2).sub_(1)


def _stack(draws: list[np.ndarray], shape: Sequence[int]) -> Tensor:
    if not draws:
        return torch.empty((0, *shape))
    return torch.from_numpy(np.stack(draws)).float()
