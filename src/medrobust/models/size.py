"""Networks that a name asks for are counted before memory is taken: a short name can describe a very large one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules import module as registration
from torch.nn.parameter import is_lazy

from medrobust import limits
from medrobust.errors import InputError


def check(name: str, make: Callable[[], nn.Module]) -> None:
    """Make the network on torch's meta device, which holds shapes and no numbers, and count it.

    InputError where it has more parameters or modules than the limits allow. Other errors are left to the network's
    real making. Draws nothing from the caller's generator.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"), counted(name) as count:
        try:
            make()
        except InputError:
            raise
        except Exception:  # not every network can be made without numbers: the real making says what is wrong
            return
        count.check()


class Count:
    """Modules and parameters of a network that is being made."""

    def __init__(self, name: str) -> None:
        self.what = f"model {name[:100]!r}"
        self.modules: dict[int, nn.Module] = {}
        self.parameters: dict[int, nn.Parameter] = {}  # kept, or their ids would be given to others

    def add_module(self, module: nn.Module) -> None:
        self.modules[id(module)] = module
        allowed = limits.value(limits.MODULES)
        if len(self.modules) > allowed:  # now, and not when a million of them are there
            raise InputError(
                f"{self.what} has more modules than the limit of {allowed:,}; if you trust it, raise the limit: "
                f"{limits.MODULES.variable}={10 * allowed}"
            )

    def check(self) -> None:
        limits.check(
            limits.PARAMETERS, sum(0 if is_lazy(p) else p.numel() for p in self.parameters.values()), self.what
        )


@contextmanager
def counted(name: str) -> Iterator[Count]:
    """Counts what is registered with any module meanwhile."""
    count = Count(name)

    def child(_: nn.Module, __: str, module: nn.Module | None) -> None:
        if module is not None:
            count.add_module(module)

    def parameter(module: nn.Module, _: str, value: nn.Parameter | None) -> None:
        count.add_module(module)
        if value is not None and isinstance(value, nn.Parameter):
            count.parameters[id(value)] = value

    hooks = (
        registration.register_module_module_registration_hook(child),
        registration.register_module_parameter_registration_hook(parameter),
    )
    try:
        yield count
    finally:
        for hook in hooks:
            hook.remove()
