"""Weights must be finite. A buffer that holds -inf beside finite numbers is a mask, as in attention, and no damage."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from medrobust.errors import InputError

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


def check_weights(net: nn.Module) -> None:
    """InputError where a network has no weights yet, or weights that are not finite."""
    if any(is_lazy(p) for p in net.parameters()):
        raise InputError("the network has lazy layers without weights: call it on images once beforehand")
    name = not_finite({**dict(net.named_parameters()), **dict(net.named_buffers())}, buffer_names(net))
    if name is not None:
        raise InputError(f"the network's weights hold NaN or infinity in {name!r}; was its training cut short?")


def buffer_names(net: nn.Module) -> set[str]:
    """Names of the network's buffers, also under the names that share their memory."""
    return {name for name, _ in net.named_buffers(remove_duplicate=False)}
