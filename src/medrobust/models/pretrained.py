"""Pretrained weights out of a file: read without running code, fitted to the network, refused where they do not fit."""

from __future__ import annotations

import argparse
import hashlib
import pickle
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from medrobust import json_files
from medrobust.errors import InputError
from medrobust.models.finite import buffer_names, not_finite
from medrobust.models.state_dicts import StateDict, fitted, unwrapped

_SCALAR = np.float64(0).__reduce__()[0]
HARMLESS: list[Any] = [
    argparse.Namespace,
    np.dtype,
    type(np.dtype("f4")),
    type(np.dtype("f8")),
    type(np.dtype("i8")),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
]
"""Classes beside tensors that checkpoints of timm and others hold: settings and numbers, which run nothing."""
Normalisation = tuple[tuple[float, ...], tuple[float, ...]]


class Loaded(NamedTuple):
    """fresh: names of the weights that stay freshly drawn. notes: a sentence for whatever was renamed or dropped."""

    fresh: tuple[str, ...]
    notes: tuple[str, ...]


class Restored(nn.Module):
    """A part of a pickled network: its tensors and parts, in the place of its own class, of which no code is run."""

    def __init__(self, *_: object) -> None:
        raise pickle.UnpicklingError("a constructor would run")


class Pretrained:
    """A weights file: .safetensors, or a torch file (.pth, .th, .pt, .bin) that loads with weights_only=True.

    ``FILE:KEY`` names which of several dictionaries in the file is taken.
    """

    def __init__(self, file: str | Path, modules: Sequence[type] = ()) -> None:
        """modules: classes of which a pickled network may be made, whose tensors alone are taken (``Restored``)."""
        self.file, self.modules = Path(file), tuple(modules)
        self.key: str | None = None
        place, _, key = str(file).rpartition(":")
        if not self.file.is_file() and place and Path(place).is_file():
            self.file, self.key = Path(place), key
        if not self.file.is_file():
            raise InputError(f"no weights file {self.file}: give an existing .safetensors or .pth file, or 'hub'")

    @cached_property
    def raw(self) -> Any:
        """The content of the file; InputError where it is unreadable or would run code."""
        raw = self._read_safetensors() if self.file.suffix == ".safetensors" else self._read_torch()
        if self.key is None:
            return raw
        if not isinstance(raw, Mapping) or self.key not in raw:
            held = ", ".join(map(repr, list(raw)[:8])) if isinstance(raw, Mapping) else type(raw).__name__
            raise InputError(f"{self.file} has nothing under {self.key!r}; it holds {held}")
        return raw[self.key]

    @cached_property
    def state(self) -> StateDict:
        """The tensors by name, as the file names them, out of the dictionary that holds them."""
        return unwrapped(self.raw, str(self.file))[0]

    @cached_property
    def sha256(self) -> str:
        """Hex digest of the file's bytes."""
        return file_sha256(self.file)

    @cached_property
    def normalisation(self) -> Normalisation | None:
        """(mean, std) out of a safetensors file's own metadata ("mean", "std"), None where it has none."""
        if self.file.suffix != ".safetensors":
            return None
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(str(self.file), "pt") as opened:
                metadata = opened.metadata() or {}
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.file} is no readable safetensors file: {error}") from error
        if "mean" not in metadata or "std" not in metadata:
            return None
        return _numbers(metadata["mean"], "mean", self.file), _numbers(metadata["std"], "std", self.file)

    def into(self, net: nn.Module, name: str, classifier: Sequence[str] = ()) -> Loaded:
        """Load the weights into ``net``; what stays freshly drawn, and what was renamed or dropped.

        Names are taken as the file has them, else without what training wraps around a network; see ``state_dicts``.
        Only the classifier layer may: where it has another number of classes or is missing. Weights for colour
        are summed for grey, weights for grey shared out among three channels. classifier: the classifier layers'
        names; () takes the last linear layer. InputError "checkpoint of another architecture" for anything else.
        """
        wanted: StateDict = dict(net.state_dict())
        named, notes = fitted(self.raw, wanted, str(self.file))
        state = _adapt_channels(_without_counters(named, wanted), wanted)
        heads = tuple(classifier) or _last_linear(net)
        state, fresh = _leave_out(state, wanted, heads)
        if difference(state, wanted, fresh):
            convert = _timm_converter(net)
            if convert is not None:
                state, fresh = _leave_out(_adapt_channels(convert(dict(state), net), wanted), wanted, heads)
        wrong = difference(state, wanted, fresh)
        if wrong:
            raise InputError(f"{self.file} is a checkpoint of another architecture than {name}: {wrong}")
        check_finite(state, str(self.file), net)
        net.load_state_dict({**wanted, **state})
        draw_classifier(net, fresh)
        return Loaded(fresh, notes)

    def _read_safetensors(self) -> Any:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(self.file)
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.file} is no readable safetensors file: {error}") from error

    def _read_torch(self) -> Any:
        if is_torchscript(self.file):
            raise InputError(
                f"{self.file} is a TorchScript program, code and weights in one, not a file of weights: give it as "
                f"--model {self.file}"
            )
        parts: list[Any] = [(Restored, f"{kind.__module__}.{kind.__qualname__}") for kind in self.modules]
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals([*HARMLESS, *parts]):
                warnings.simplefilter("ignore")  # on foreign files torch warns before it raises what is told below
                raw = torch.load(self.file, map_location="cpu", weights_only=True)
                return dict(_tensors(raw)) if isinstance(raw, Restored) else raw
        except pickle.UnpicklingError as error:
            raise InputError(
                f"{self.file} holds more than weights and would run code when loaded, refused: have its maker save "
                "net.state_dict() with safetensors.torch.save_file"
            ) from error
        except Exception as error:  # a broken archive raises whatever its reader happened upon
            raise InputError(f"{self.file} is no readable torch file ({type(error).__name__}); is it whole?") from error


def _tensors(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a network by name; an old file's lacks what ``state_dict`` needs."""
    for own in (module._parameters, module._buffers):
        yield from ((prefix + name, value.detach()) for name, value in own.items() if value is not None)
    for name, child in module._modules.items():
        if child is not None:
            yield from _tensors(child, f"{prefix}{name}.")


def is_torchscript(file: Path) -> bool:
    """An archive with a folder of code."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.split("/")[1:2] == ["code"] for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def normalisation(name: str, pretrained: str | None) -> Normalisation | None:
    """(mean, std), one number a colour channel, that the pretrained weights were trained with; None where unknown.

    A safetensors file's own metadata wins over what timm states for the architecture.
    """
    from medrobust.models import architectures, cifar_resnet, own_network, timm_network

    if pretrained is None:
        return None
    if pretrained != "hub":
        stated = Pretrained(pretrained).normalisation
        if stated is not None:
            return stated
    name = architectures.ALIASES.get(name, name)
    if name.startswith("cifar_resnet"):
        return cifar_resnet.MEAN, cifar_resnet.STD
    if own_network.is_own(name) or architectures.is_ours(name) or not timm_network.is_timm(name):
        return None
    stated_by_timm = timm_network.configuration(name)
    if "mean" not in stated_by_timm or "std" not in stated_by_timm:
        return None
    return tuple(stated_by_timm["mean"]), tuple(stated_by_timm["std"])


def draw_classifier(net: nn.Module, keys: Sequence[str]) -> None:
    """Draw the classifier's weights anew and small, so that training starts near the loss of not knowing.

    timm's own draw for MobileNets depends on the number of classes and gives two classes weights so large that
    fine-tuning starts at five times that loss and spends its first epochs unlearning them.
    """
    for key in keys:
        parameter = net.get_parameter(key)
        if parameter.ndim > 1:
            nn.init.normal_(parameter, 0, 0.01)
        else:
            nn.init.zeros_(parameter)


def classifier_keys(net: nn.Module, layers: Sequence[str]) -> tuple[str, ...]:
    """Names of the weights and biases of these layers that ``net`` has."""
    there = dict(net.named_parameters())
    return tuple(key for layer in layers for key in (f"{layer}.weight", f"{layer}.bias") if key in there)


def check_finite(state: StateDict, where: str, net: nn.Module) -> None:
    """InputError where a weight for ``net`` is NaN or infinite."""
    name = not_finite(state, buffer_names(net))
    if name is not None:
        raise InputError(f"the weights in {where} are not finite (NaN or infinity in {name}): train it again")


def difference(state: StateDict, wanted: StateDict, but: Sequence[str] = ()) -> str:
    """What keeps ``state`` from fitting ``wanted``, in words with the first names; empty where it fits.

    but: names that may be missing.
    """
    missing = [key for key in wanted if key not in state and key not in but]
    unexpected = [key for key in state if key not in wanted]
    mismatched = [
        f"{key} {tuple(state[key].shape)} for {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", mismatched))
    return "; ".join(f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in kinds if keys)


def file_sha256(file: Path) -> str:
    """Hex digest of a file's bytes."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _first(keys: list[str]) -> str:
    return ", ".join(keys[:2]) + (", …" if len(keys) > 2 else "")


def _numbers(text: str, what: str, file: Path) -> tuple[float, ...]:
    try:
        numbers = tuple(float(v) for v in json_files.parse(f"[{text.strip().strip('[]()')}]", what))
    except ValueError as error:
        raise InputError(f"the metadata of {file} has {what}={text!r}, not numbers such as 0.5,0.5,0.5") from error
    if len(numbers) not in (1, 3):
        raise InputError(f"the metadata of {file} has {len(numbers)} numbers for {what}, 1 or 3 are needed")
    return numbers


def _without_counters(state: StateDict, wanted: StateDict) -> StateDict:
    """BatchNorm's batch counters differ between versions of torch and change no output."""
    counter = "num_batches_tracked"
    kept = {key: value for key, value in state.items() if key in wanted or not key.endswith(counter)}
    return kept | {key: value for key, value in wanted.items() if key.endswith(counter) and key not in state}


def _adapt_channels(state: StateDict, wanted: StateDict) -> StateDict:
    """A first convolution for 3 channels summed for 1 (as timm does), one for 1 channel shared out among 3."""
    adapted = dict(state)
    for key, value in state.items():
        if key not in wanted or value.ndim != 4 or wanted[key].ndim != 4:
            continue
        have, want = value.shape, wanted[key].shape
        if (have[0], *have[2:]) != (want[0], *want[2:]):
            continue
        if (have[1], want[1]) == (3, 1):
            adapted[key] = value.sum(1, keepdim=True)
        elif (have[1], want[1]) == (1, 3):
            adapted[key] = value.expand(-1, 3, -1, -1) / 3
    return adapted


def _last_linear(net: nn.Module) -> tuple[str, ...]:
    linear = [key for key, module in net.named_modules() if isinstance(module, nn.Linear)]
    return tuple(linear[-1:])


def _leave_out(state: StateDict, wanted: StateDict, classifier: Sequence[str]) -> tuple[StateDict, tuple[str, ...]]:
    """The state without classifier layers of another number of classes, and the names that are then missing."""
    fresh: list[str] = []
    for layer in classifier:
        keys = [key for key in (f"{layer}.weight", f"{layer}.bias") if key in wanted]
        have, want = state.get(f"{layer}.weight"), wanted.get(f"{layer}.weight")
        if want is None:
            continue
        other_classes = have is not None and have.shape != want.shape and have.shape[1:] == want.shape[1:]
        if have is None or other_classes:
            fresh += keys
    return {key: value for key, value in state.items() if key not in fresh}, tuple(fresh)


def _timm_converter(net: nn.Module) -> Callable[[StateDict, nn.Module], StateDict] | None:
    """timm's own translation of foreign checkpoints (torchvision's VGG, a ViT of another image size)."""
    module = type(net).__module__
    if not module.startswith("timm."):
        return None
    return getattr(sys.modules[module], "checkpoint_filter_fn", None)
