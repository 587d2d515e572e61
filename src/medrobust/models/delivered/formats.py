"""Which format a file, a folder or a name is of, and how it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import medrobust.models.delivered.exported as exported
import medrobust.models.delivered.hf as hf
import medrobust.models.delivered.monai_nets as monai_nets
import medrobust.models.delivered.onnx_file as onnx_file
import medrobust.models.delivered.xrv as xrv
from medrobust.errors import InputError
from medrobust.models.delivered.network import Delivered, NetworkRequest, needed
from medrobust.models.pretrained import Pretrained


class Format(NamedTuple):
    """matches: whether a source is of this format. modules: of the extra that it needs. weights: takes --weights.
    needs_weights: and cannot do without."""

    name: str
    matches: Callable[[str], bool]
    load: Callable[[NetworkRequest], Delivered]
    extra: str | None = None
    modules: tuple[str, ...] = ()
    weights: bool = False
    needs_weights: bool = False


FORMATS = (
    Format(
        "an ONNX file",
        lambda source: source.endswith(onnx_file.SUFFIX),
        onnx_file.load,
        onnx_file.EXTRA,
        onnx_file.MODULES,
    ),
    Format("a program of torch.export", lambda source: source.endswith(exported.SUFFIX), exported.load_exported),
    Format("a TorchScript program", exported.is_script, exported.load_script),
    Format("a MONAI bundle", monai_nets.is_bundle, monai_nets.load_bundle, *monai_nets.NEEDS, weights=True),
    Format("a Hugging Face folder", hf.is_folder, hf.load, hf.EXTRA, hf.MODULES),
    Format(
        "a network of MONAI",
        lambda source: source.startswith(monai_nets.PREFIX),
        monai_nets.load_named,
        *monai_nets.NEEDS,
        weights=True,
        needs_weights=True,
    ),
    Format(
        "a network of torchxrayvision",
        lambda source: source.startswith(xrv.PREFIX),
        xrv.load,
        xrv.EXTRA,
        xrv.MODULES,
        weights=True,
    ),
)


def _format(source: str) -> Format | None:
    return next((f for f in FORMATS if f.matches(source)), None)


def is_delivered(source: str) -> bool:
    """Whether the source says by itself which network it holds, in a format of others."""
    return _format(source) is not None


def check(source: str, weights: str | None = None) -> None:
    """InputError where ``load`` would refuse the source by its name alone; nothing is read or built."""
    kind = _format(source)
    assert kind is not None
    if kind.extra is not None:
        needed(kind.extra, source, *kind.modules)
    if weights is not None and not kind.weights:
        raise InputError(f"{source} is {kind.name} with weights of its own: leave --weights out")
    if weights is None and kind.needs_weights:
        raise InputError(f"{source} has no weights: give --weights FILE")
    if ":" not in source and not Path(source).exists():
        raise InputError(f"no file {source}")
    if weights is not None:
        Pretrained(weights)


def load(request: NetworkRequest) -> Delivered:
    """The network on the CPU in evaluation mode. InputError, in one line, for a source that cannot be used."""
    check(request.source, request.weights)
    kind = _format(request.source)
    assert kind is not None
    delivered = kind.load(request)
    for module in delivered.net.modules():
        if hasattr(module, "training"):  # exported programs have no .eval(), frozen ones no modes
            module.training = False
    return delivered


def stated_preprocessing(source: str) -> str | None:
    """The steps from images of any size to the network's input that the source states; None where it does not."""
    return hf.preprocessing(source) if hf.is_folder(source) and not monai_nets.is_bundle(source) else None
