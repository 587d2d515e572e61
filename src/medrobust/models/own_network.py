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

from medrobust.errors import InputError, one_line
from medrobust.models.black_box import BlackBoxModel
from medrobust.models.http_endpoint import is_url

SYNONYMS = {
    "classes": ("num_classes", "n_classes", "nb_classes", "outputs", "num_outputs"),
    "channels": ("in_channels", "in_chans", "num_channels", "n_channels"),
    "size": ("img_size", "image_size", "input_size"),
}
"""Names under which networks commonly take the number of outputs, the channels, and the pixels a side."""
IMAGES = ("images", "image", "imgs", "img", "batch", "pixels", "arrays", "array", "inputs", "input", "x")
"""Names of the argument of a function that answers images, rather than makes a network."""


def is_own(name: str) -> bool:
    """Whether the name reads ``module:function``, not ``small_cnn:width=32``."""
    return ":" in name and "=" not in name and not is_url(name)


def check_trust(name: str, trust_code: bool | str, where: str) -> None:
    """InputError where ``name`` is that of code which nobody said may run.

    trust_code: True for any code, or the name that the user gave. where: what names the code.
    """
    if is_own(name) and trust_code is not True and trust_code != name:
        raise InputError(
            f"{where} names the code {name}, which would be imported and run: if you trust it, give --trust-code "
            "(in Python trust_code=True)"
        )


def make(name: str, *, outputs: int, channels: int, size: int | None) -> nn.Module:
    """Import ``module:function`` from the current folder or Python's path and call it.

    It is called with those of the keyword arguments ``classes`` (the number of outputs), ``channels`` and
    ``size`` (pixels a side) that its signature takes, under these names or one of SYNONYMS, and must return a torch
    module that gives logits (n, classes), or a callable that answers arrays (see ``black_box.Answer``). It may also be
    such a module or callable itself: a function of one argument, of one of the names in IMAGES. InputError where it
    cannot be found, fails, or returns something else.
    """
    offered = {"classes": outputs, "channels": channels, "size": size}
    with current_folder_first():
        function = _find(name)
        if isinstance(function, nn.Module):  # the network itself, made where the module was imported
            return function
        if _answers(function):
            return BlackBoxModel(function, outputs)
        attempts = _arguments(name, function, offered)
        for i, arguments in enumerate(attempts, start=1):
            try:
                net = function(**arguments)
                break
            except InputError:
                raise
            except (Exception, SystemExit) as error:
                unknown = isinstance(error, TypeError) and "unexpected keyword argument" in str(error)
                if not (unknown and i < len(attempts)):
                    raise InputError(f"{name} failed: {one_line(error)}") from error
    if isinstance(net, nn.Module):
        return net
    if not callable(net):
        raise InputError(
            f"{name} must return a torch.nn.Module, or a function from images to scores or labels; it returned "
            f"{type(net).__name__}"
        )
    return BlackBoxModel(net, outputs)


def _answers(function: Callable[..., Any]) -> bool:
    """Whether it takes images, by its signature: one argument without a default, of one of the names of images."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    needed = [p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return not isinstance(function, type) and len(needed) == 1 and needed[0].name.lower() in IMAGES


def _find(name: str) -> Callable[..., Any]:
    module_name, _, function_name = name.partition(":")
    parts = (*module_name.split("."), function_name)
    if not all(part.isidentifier() for part in parts):
        raise InputError(
            f"{name!r} must read module:function, as in mynet:make for the function make in mynet.py "
            "of the current folder"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise InputError(
                f"no module {module_name!r} for the model {name!r}: run from the folder that holds "
                f"{parts[0]}.py, or put that folder on PYTHONPATH"
            ) from error
        raise InputError(f"{module_name} could not be imported: {one_line(error)}") from error
    except (Exception, SystemExit) as error:  # a script without a main guard may call sys.exit
        raise InputError(f"{module_name} could not be imported: {one_line(error)}") from error
    function: Callable[..., Any] | None = getattr(module, function_name, None)
    if not callable(function):
        raise InputError(f"{module_name} ({getattr(module, '__file__', 'built in')}) has no function {function_name!r}")
    return function


def _arguments(name: str, function: Callable[..., Any], offered: dict[str, int | None]) -> list[dict[str, int]]:
    """The arguments to call the function with: what it takes of those offered, under the names in use.

    Several for a function of ``**kwargs``, to be tried in turn. InputError where it needs any other.
    """
    given = {key: value for key, value in offered.items() if value is not None}
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} has no readable signature; wrap it in a function of your own") from error
    taken: dict[str, int] = {}
    for p in parameters:
        if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL, p.POSITIONAL_ONLY):
            continue
        means = next((key for key, names in SYNONYMS.items() if p.name == key or p.name in names), None)
        if means in given:
            taken[p.name] = given.pop(means)
        elif p.default is p.empty:
            raise InputError(
                f"{name} needs the argument {p.name!r}, but is called with classes=, channels= and size= only: "
                "give it a default (a function from images to scores or labels calls its argument images)"
            )
    if not any(p.kind is p.VAR_KEYWORD for p in parameters):
        return [taken]
    renamed = {"num_classes": given["classes"]} if "classes" in given else {}
    return [taken | given, taken | renamed, taken]


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
