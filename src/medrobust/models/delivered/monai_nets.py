"""MONAI's networks by name (``monai:DenseNet121``, two spatial dimensions) and its bundles.

A bundle's config can name any code (``_target_``, ``$`` expressions): networks and layers of MONAI and torch are made,
nothing else is run.
"""

from __future__ import annotations

import importlib
import inspect
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from torch import Tensor, nn

from medrobust import json_files
from medrobust.errors import InputError, one_line
from medrobust.models.delivered.exported import load_script
from medrobust.models.delivered.network import Delivered, NetworkRequest, needed
from medrobust.models.pretrained import Pretrained

PREFIX = "monai:"
EXTRA = "monai"
MODULES = ("monai.networks.nets",)
NEEDS = (EXTRA, MODULES)
CONFIG = Path("configs") / "inference.json"
ALLOWED = ("monai.networks", "torch.nn")
LOADS = ("pretrained", "pretrained_url", "checkpoint", "model_file", "weights", "weights_path")
"""Arguments that would load or download something."""


def is_bundle(source: str) -> bool:
    """Whether it is the folder of a bundle."""
    return (Path(source) / CONFIG).is_file()


def load_named(request: NetworkRequest) -> Delivered:
    """``monai:NAME`` with options after colons (``monai:ViT:patch_size=8:classification=true``), and --weights."""
    (nets,) = needed(EXTRA, request.source, *MODULES)
    name, *options = request.source.removeprefix(PREFIX).split(":")
    assert request.weights is not None  # see ``formats.check``
    make = getattr(nets, name, None)
    if make is None or not _makes_networks(make):
        raise InputError(f"MONAI has no network {name!r}")
    weights = Pretrained(request.weights)
    settings = {key: _value(text) for key, _, text in (option.partition("=") for option in options)}
    channels = _channels(weights.state, request.channels)
    offered: dict[str, object] = {
        "spatial_dims": 2,
        **dict.fromkeys(("in_channels", "n_input_channels"), channels),
        **dict.fromkeys(("out_channels", "num_classes"), request.outputs or len(request.classes)),
    }
    if request.size is not None:
        offered["img_size"] = (request.size, request.size)
    taken = inspect.signature(make).parameters
    net = _made(make, {k: v for k, v in offered.items() if k in taken} | settings, request.source)
    return _weighted(net, weights, request.source, channels)


def load_bundle(request: NetworkRequest) -> Delivered:
    """configs/inference.json with models/model.pt (weights of its network) or models/model.ts (TorchScript)."""
    folder = Path(request.source)
    config = json_files.read_object(folder / CONFIG)
    stated = _stated(folder)
    script = folder / "models" / "model.ts"
    weights = folder / "models" / "model.pt"
    if request.weights is None and not weights.is_file() and script.is_file():
        return _with(load_script(NetworkRequest(str(script), request.classes)), stated)
    needed(EXTRA, request.source, *MODULES)
    given = request.weights or weights
    definition = next((config[k] for k in ("network_def", "network", "net") if isinstance(config.get(k), dict)), None)
    if definition is None:
        raise InputError(f"{folder / CONFIG} defines no network: no network_def with a _target_")
    net = _resolved(definition, config, folder / CONFIG)
    if not isinstance(net, nn.Module):
        raise InputError(f"{folder / CONFIG}: network_def makes no network")
    loaded = Pretrained(given)
    return _with(_weighted(net, loaded, request.source, _channels(loaded.state, request.channels)), stated)


def _weighted(net: nn.Module, weights: Pretrained, source: str, channels: int) -> Delivered:
    loaded = weights.into(net, source)
    if loaded.fresh:
        raise InputError(f"{weights.file} has another number of classes than {source}: {loaded.fresh[0]} does not fit")
    return Delivered(net, channels=channels, notes=loaded.notes)


def _with(made: Delivered, stated: Mapping[str, Any]) -> Delivered:
    return Delivered(**{**vars(made), **stated})


def _stated(folder: Path) -> dict[str, object]:
    """Classes and size out of configs/metadata.json, as far as they stand there."""
    file = folder / "configs" / "metadata.json"
    data = json_files.read_object(file).get("network_data_format") if file.is_file() else None
    stated: dict[str, object] = {}
    try:
        shape = data["inputs"]["image"]["spatial_shape"]  # type: ignore[index]
        if len(shape) == 2 and shape[0] == shape[1] and isinstance(shape[0], int):
            stated["size"] = shape[0]
        (output,) = data["outputs"].values()  # type: ignore[index]
        names = output["channel_def"]
        stated["classes"] = tuple(str(names[key]) for key in sorted(names, key=int))
    except (KeyError, TypeError, ValueError):  # a description for people, of no fixed form
        pass
    return stated


def _resolved(value: object, config: Mapping[str, Any], where: Path, depth: int = 0) -> Any:
    """A value of the config with its references and targets in place. InputError for what would run code."""
    if depth > 50:
        raise InputError(f"{where}: references go round in a circle")
    if isinstance(value, str) and value.startswith("$"):
        raise InputError(f"{where} holds the expression {value[:60]!r}, which is code and is not run: write its value")
    if isinstance(value, str) and value.startswith("@"):
        found: Any = config
        for part in value[1:].replace("#", "::").split("::"):
            if not isinstance(found, Mapping) or part not in found:
                raise InputError(f"{where}: {value} refers to nothing")
            found = found[part]
        return _resolved(found, config, where, depth + 1)
    if isinstance(value, list):
        return [_resolved(item, config, where, depth + 1) for item in value]
    if isinstance(value, dict):
        inner = {k: _resolved(v, config, where, depth + 1) for k, v in value.items() if not k.startswith("_")}
        if "_target_" not in value:
            return inner
        return _made(_target(str(value["_target_"]), where), inner, f"{where}: {value['_target_']}")
    return value


def _target(name: str, where: Path) -> Any:
    module_name, _, attribute = name.rpartition(".")
    module_name = module_name or "monai.networks.nets"
    allowed = any(module_name == root or module_name.startswith(root + ".") for root in ALLOWED)
    if allowed:
        try:
            found = getattr(importlib.import_module(module_name), attribute, None)
        except ImportError:
            found = None
        if _makes_networks(found):
            return found
    raise InputError(f"{where}: _target_ {name!r} is no network or layer of monai.networks or torch.nn: it is not run")


def _makes_networks(found: object) -> bool:
    """A class of modules, or a function of MONAI's networks that returns one, of the package itself."""
    module = str(getattr(found, "__module__", ""))
    if isinstance(found, type):
        return issubclass(found, nn.Module) and module.startswith(("monai.networks.", "torch.nn."))
    if not inspect.isfunction(found) or not module.startswith("monai.networks.nets."):
        return False
    made = get_type_hints(found).get("return")  # others download, or change what they are given
    return isinstance(made, type) and issubclass(made, nn.Module)


def _made(make: Any, arguments: Mapping[str, Any], what: str) -> nn.Module:
    for name in LOADS:
        if arguments.get(name):
            raise InputError(f"{what}: {name} would load or download something: leave it out, and give --weights FILE")
    try:
        by_default = {n for n, p in inspect.signature(make).parameters.items() if n in LOADS and p.default is True}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            net = make(**{**arguments, **dict.fromkeys(by_default, False)})
    except Exception as error:  # whatever its constructors raise
        raise InputError(f"{what} cannot be made: {one_line(error)}") from error
    if not isinstance(net, nn.Module):
        raise InputError(f"{what} makes {type(net).__name__}, no network")
    return net


def _channels(state: Mapping[str, Tensor], channels: int) -> int:
    """Of the images that the weights are for: those of the first convolution."""
    first = next((v.shape[1] for v in state.values() if v.ndim == 4), channels)
    return int(first) if first in (1, 3) else channels


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
