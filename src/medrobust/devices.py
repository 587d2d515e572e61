"""Where a network computes: the device of that name, tried out."""

from __future__ import annotations

import torch

from medrobust.errors import InputError


def find(name: str | None = None) -> torch.device:
    """The device ``name`` ("cpu", "cuda:1"), or the GPU where there is one. InputError where torch can not use it."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        usable = torch.zeros(1, device=device).cpu().numel() == 1
    except (RuntimeError, AssertionError, NotImplementedError):  # torch says each in its own way
        usable = False
    if not usable:
        here = f"cpu or cuda:0 to cuda:{torch.cuda.device_count() - 1}" if torch.cuda.is_available() else "cpu"
        raise InputError(f"device {name!r} can not be used here; give {here}, or leave it out")
    return device
