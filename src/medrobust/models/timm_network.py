"""Any architecture of timm (Wightman 2019, PyTorch Image Models), by its timm name."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from torch import nn

import medrobust.models.hub as model_hub
from medrobust.errors import InputError

COMPILER = "torch._dynamo"


def load() -> Any:
    """The package timm, imported without torch's compiler.

    The compiler takes 8 of timm's 11 seconds. torchvision.ops imports it for a function that pools boxes on a GPU, and
    timm to exclude two methods of an iterator from compilation; here both import it when they are called.
    """
    if "timm" in sys.modules or COMPILER in sys.modules:
        return importlib.import_module("timm")
    package, functions = ModuleType(COMPILER), ModuleType(f"{COMPILER}.utils")
    vars(package).update(__path__=[], disable=_disable)
    vars(functions).update(is_compile_supported=_is_compile_supported)
    sys.modules |= {module.__name__: module for module in (package, functions)}
    try:
        return importlib.import_module("timm")
    finally:
        for module in (package, functions):
            if sys.modules.get(module.__name__) is module:
                del sys.modules[module.__name__]


def _is_compile_supported(device_type: str) -> bool:
    return bool(importlib.import_module(f"{COMPILER}.utils").is_compile_supported(device_type))


def _disable(function: Callable[..., Any], recursive: bool = True, **reason: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: object, **arguments: object) -> Any:
        if COMPILER not in sys.modules:  # nothing is being compiled
            return function(*args, **arguments)
        return sys.modules[COMPILER].disable(function, recursive, **reason)(*args, **arguments)

    return call


def is_timm(name: str) -> bool:
    """Whether timm knows the architecture (a tag such as ``.a1_in1k`` after the name is allowed)."""
    timm = load()
    return bool(timm.is_model(name.split(".")[0]))


def nearest(name: str, also: list[str]) -> list[str]:
    """Up to three known names that look most like ``name``; ``also``: names beside timm's."""
    timm = load()
    return difflib.get_close_matches(name, [*also, *timm.list_models()], n=3, cutoff=0.5)


def configuration(name: str) -> Mapping[str, Any]:
    """timm's pretrained_cfg: mean, std, input_size, classifier, fixed_input_size; empty where it has none."""
    timm = load()
    try:
        with _known_warnings():
            config = timm.get_pretrained_cfg(name)
    except RuntimeError as error:
        tags = timm.list_pretrained(name.split(".")[0])
        reason = f"timm has {', '.join(tags[:4])}" if tags else "timm has no weights for it"
        raise InputError(f"{error}".rstrip(".") + f": {reason}, or leave the tag off") from error
    return {} if config is None else config.to_dict()


def classifier(name: str) -> tuple[str, ...]:
    """Names of the architecture's classifier layers, as timm states them."""
    stated = configuration(name).get("classifier") or ()
    return (stated,) if isinstance(stated, str) else tuple(stated)


def make(name: str, *, outputs: int, channels: int, size: int | None, hub: bool) -> nn.Module:
    """The network; size is passed on to those that are built for one (ViT, Swin). hub: with timm's weights."""
    timm = load()
    arguments: dict[str, Any] = {"num_classes": outputs, "in_chans": channels, "pretrained": hub}
    fixed = configuration(name).get("fixed_input_size")
    if size is not None and fixed:
        arguments["img_size"] = size
    offline = model_hub.only_the_cache() if hub and not model_hub.answers() else contextlib.nullcontext()
    try:
        with _known_warnings(), offline:
            net: nn.Module = timm.create_model(name, **arguments)
            return net
    except OSError as error:  # huggingface_hub's and urllib's network errors are OSErrors
        if not hub:
            raise
        raise InputError(
            f"the weights of {name} could not be downloaded (no connection to the hub, and no copy in its cache): "
            "download them elsewhere and give the file, pretrained=FILE.safetensors"
        ) from error
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"timm cannot make {name} with {outputs} outputs, {channels} channels"
            f"{'' if size is None else f' at {size} px'}{' from the hub' if hub else ''}: {reason}"
        ) from error


@contextmanager
def _known_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        # timm renames models now and then and maps the old name by itself
        warnings.filterwarnings("ignore", message="Mapping deprecated model name")
        yield
