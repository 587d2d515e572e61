"""Weights must be finite. A buffer that holds -inf beside finite numbers is a mask, as in attention, and no damage."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

STATISTICS = ("running_mean", "running_var")
"""Buffers of BatchNorm, which training makes."""


def not_finite(state: Mapping[str, Tensor], buffers: Collection[str]) -> str | None:
    """The first name in ``state`` whose tensor is damaged by NaN or infinity; None where there is none.

    buffers: those names that are no parameters.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            continue
        finite = torch.isfinite(value)
        if bool(finite.all()):
            continue
        mask = name in buffers and name.rpartition(".")[2] not in STATISTICS
        if not (mask and bool((value[~finite] == -torch.inf).all())):
            return name
    return None


def buffer_names(net: nn.Module) -> set[str]:
    """Names of the network's buffers, also under the names that share their memory."""
    return {name for name, _ in net.named_buffers(remove_duplicate=False)}
