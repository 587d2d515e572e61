"""A small MLP in place of a network's last linear layer: ``ARCHITECTURE+mlpH`` is that network with H hidden units.

What was fitted to a network's penultimate features becomes a network again, which can be attacked through them.
"""

from __future__ import annotations

import re

from torch import nn

from medrobust.errors import InputError

_NAME = re.compile(r"(?P<body>.+)\+mlp(?P<hidden>[1-9]\d{0,3})")


def split_name(name: str) -> tuple[str, int | None]:
    """("mobilenetv2_100", 8) of "mobilenetv2_100+mlp8"; (name, None) of any other name."""
    match = _NAME.fullmatch(name)
    return (name, None) if match is None else (match["body"], int(match["hidden"]))


def named(body: str, hidden: int | None) -> str:
    """The name of ``body`` with an MLP of ``hidden`` units; ``body`` itself for None."""
    return body if hidden is None else f"{body}+mlp{hidden}"


def last_linear(net: nn.Module) -> tuple[str, nn.Linear]:
    """The network's last linear layer and its name; InputError where it has none."""
    layers = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Linear) and name]
    if not layers:
        raise InputError("the network ends in no linear layer, so no small network can be put in its place")
    return layers[-1]


def put(net: nn.Module, hidden: int) -> nn.Module:
    """``net`` with its last linear layer replaced, in place: linear, tanh, linear; freshly drawn."""
    name, old = last_linear(net)
    new = nn.Sequential(nn.Linear(old.in_features, hidden), nn.Tanh(), nn.Linear(hidden, old.out_features))
    parent, _, own = name.rpartition(".")
    setattr(net.get_submodule(parent), own, new)
    return net
