"""Any architecture of timm (Wightman 2019, PyTorch Image Models), by its timm name."""

from __future__ import annotations

import contextlib
import difflib
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

import medrobust.models.hub as model_hub
from medrobust.errors import InputError


def is_timm(name: str) -> bool:
    """Whether timm knows the architecture (a tag such as ``.a1_in1k`` after the name is allowed)."""
    import timm

    return timm.is_model(name.split(".")[0])


def nearest(name: str, also: list[str]) -> list[str]:
    """Up to three known names that look most like ``name``; ``also``: names beside timm's."""
    import timm

    return difflib.get_close_matches(name, [*also, *timm.list_models()], n=3, cutoff=0.5)


def configuration(name: str) -> Mapping[str, Any]:
    """timm's pretrained_cfg: mean, std, input_size, classifier, fixed_input_size; empty where it has none."""
    import timm

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
    import timm

    arguments: dict[str, Any] = {"num_classes": outputs, "in_chans": channels, "pretrained": hub}
    fixed = configuration(name).get("fixed_input_size")
    if size is not None and fixed:
        arguments["img_size"] = size
    offline = model_hub.only_the_cache() if hub and not model_hub.answers() else contextlib.nullcontext()
    try:
        with _known_warnings(), offline:
            return timm.create_model(name, **arguments)
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
