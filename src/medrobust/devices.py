"""Where a network computes: the device of that name, tried out; and the memory it computes in."""

from __future__ import annotations

import ctypes
import functools

import torch

from medrobust.errors import InputError


def find(name: str | None = None) -> torch.device:
    """The device ``name`` ("cpu", "cuda:1"), or the GPU where there is one. InputError where torch cannot use it."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        usable = torch.zeros(1, device=device).cpu().numel() == 1
    except (RuntimeError, AssertionError, NotImplementedError):  # torch says each in its own way
        usable = False
    if not usable:
        here = f"cpu or cuda:0 to cuda:{torch.cuda.device_count() - 1}" if torch.cuda.is_available() else "cpu"
        raise InputError(f"device {name!r} cannot be used here; give {here}, or leave it out")
    return device


KEPT = 512 * 2**20
"""Bytes of freed memory that the process may keep for its next tensors."""


@functools.cache
def keep_memory() -> bool:
    """Let the C library keep what it frees (glibc only; once a process). Returns whether it agreed.

    Each layer of a network allocates and frees megabytes. Given back to the system and fetched again, every page
    costs a fault, and for a MobileNetV2 on a CPU that is a quarter of the time of a gradient (docs/benchmarks.md).
    """
    trim_threshold, mmap_threshold = -1, -3  # malloc.h
    try:
        library = ctypes.CDLL(None)
        tuned = library.mallopt(mmap_threshold, 32 * 2**20) and library.mallopt(trim_threshold, KEPT)
    except (OSError, AttributeError):
        return False
    return bool(tuned)
