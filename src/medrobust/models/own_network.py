"""The user's own network, named ``module:function``."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from medrobust.errors import InputError


def is_own(name: str) -> bool:
    """Whether the name reads ``module:function``, not ``small_cnn:width=32``."""
    return ":" in name and "=" not in name


def make(name: str, *, outputs: int, channels: int, size: int | None) -> nn.Module:
    """Import ``module:function`` from the current folder or Python's path and call it.

    It is called with those of the keyword arguments ``classes`` (the number of outputs), ``channels`` and
    ``size`` (pixels a side) that its signature takes, and must return a torch module that gives logits
    (n, classes). InputError where it can not be found, fails, or returns something else.
    """
    with current_folder_first():
        function = _find(name)
        try:
            net = function(**_arguments(name, function, {"classes": outputs, "channels": channels, "size": size}))
        except InputError:
            raise
        except Exception as error:
            raise InputError(f"{name} failed: {type(error).__name__}: {_first_line(error)}") from error
    if not isinstance(net, nn.Module):
        raise InputError(f"{name} must return a torch.nn.Module, it returned {type(net).__name__}")
    return net


def _find(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    parts = (*module_name.split("."), function_name)
    if not all(part.isidentifier() for part in parts):
        raise InputError(
            f"{name!r} must read module:function, as in mynet:make for the function make in mynet.py "
            "of the current folder"
        )
    if parts[0] in sys.stdlib_module_names:
        # a checkpoint from elsewhere could otherwise name os:abort and have it called
        raise InputError(f"{name!r} names Python's own module {parts[0]}; name the module that defines your network")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise InputError(
                f"no module {module_name!r} for the model {name!r}: run from the folder that holds "
                f"{parts[0]}.py, or put that folder on PYTHONPATH"
            ) from error
        raise InputError(f"{module_name} could not be imported: {_first_line(error)}") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise InputError(f"{module_name} could not be imported: {reason}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"{module_name} ({module.__file__}) has no function {function_name!r}")
    return function


def _arguments(name: str, function: Callable[..., Any], offered: dict[str, int | None]) -> dict[str, int]:
    """Those of the offered arguments that the function takes; InputError where it needs any other."""
    known = {key: value for key, value in offered.items() if value is not None}
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} has no readable signature; wrap it in a function of your own") from error
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = dict(known)
    else:
        taken = {p.name: known[p.name] for p in parameters if p.name in known and p.kind is not p.POSITIONAL_ONLY}
    for p in parameters:
        needed = p.default is p.empty and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
        if needed and p.name not in taken:
            raise InputError(
                f"{name} needs the argument {p.name!r}, but is called with classes=, channels= and size= only: "
                "give it a default"
            )
    return taken


@contextmanager
def current_folder_first() -> Iterator[None]:
    """As ``python -m`` has it: a console script's path does not hold the current folder."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        importlib.invalidate_caches()  # the file may be newer than the last look at its folder
        yield
    finally:
        sys.path.remove(folder)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
