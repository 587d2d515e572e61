"""How a network is called and what of its output is used: type, entry, one image at a time or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medrobust.errors import InputError
from medrobust.models.probabilities import to_logits

LOGITS = "logits"
"""The key under which libraries return them (transformers' ModelOutput, torchvision's GoogLeNetOutputs)."""


class Form(NamedTuple):
    """dtype: of the images the network computes with. key: of the entry of its output that holds the logits, None
    where it returns a tensor. single: it is given one image at a time. probabilities: what it returns is one
    probability of each of several exclusive classes ("classes"), of each decision by itself ("each"), or None: logits.
    """

    dtype: torch.dtype = torch.float32
    key: str | int | None = None
    single: bool = False
    probabilities: str | None = None

    def run(self, net: nn.Module, inputs: Tensor) -> Tensor:
        """Raw outputs, float32 (n, outputs), of normalised images (n, c, h, w); logits of probabilities."""
        if self.single:
            return torch.cat([self._batch(net, one) for one in inputs.split(1)])
        return self._batch(net, inputs)

    def _batch(self, net: nn.Module, inputs: Tensor) -> Tensor:
        def call(net: nn.Module, dtype: torch.dtype) -> Tensor:
            out = net(inputs.to(dtype))
            taken = out if self.key is None else entries(out)[self.key]
            assert isinstance(taken, Tensor)
            return taken

        n = inputs.shape[0]
        if self.probabilities:
            return to_logits(net, call, n, self.dtype, self.probabilities == "classes")
        return call(net, self.dtype).reshape(n, -1).float()


class Formed(nn.Module):
    """``net`` as a network that takes float32 images in batches and returns one float32 tensor."""

    def __init__(self, net: nn.Module, form: Form) -> None:
        super().__init__()
        self.net, self.form = net, form

    def forward(self, inputs: Tensor) -> Tensor:
        return self.form.run(self.net, inputs)


def first_channels(net: nn.Module) -> int | None:
    """Input channels of the first 2-D convolution; None where there is none."""
    return next((module.in_channels for module in net.modules() if isinstance(module, nn.Conv2d)), None)


def entries(out: object) -> dict[str | int, object]:
    """The entries of an output that is no tensor, by key, field or position; empty where it has none."""
    if isinstance(out, Mapping):
        return dict(out)
    if isinstance(out, tuple) and hasattr(out, "_fields"):
        return dict(zip(out._fields, out, strict=True))
    if isinstance(out, tuple | list):
        return dict(enumerate(out))
    if dataclasses.is_dataclass(out) and not isinstance(out, type):
        return {field.name: getattr(out, field.name) for field in dataclasses.fields(out)}
    return {}


def find_logits(
    out: object, n: int, outputs: int, needed: str, wanted: str | int | None = None
) -> tuple[Tensor, str | int | None]:
    """The raw outputs (n, outputs) in what a network returned for n images, and the key of their entry.

    needed: what errors say of the number of outputs. wanted: the key, where it was given. InputError where there are
    none, or several to choose from.
    """
    if wanted is not None:
        return _wanted(out, n, outputs, needed, wanted)
    if isinstance(out, Tensor):
        if not _fits(out, n, outputs):
            raise InputError(_misfit(out, n, needed))
        return out.reshape(n, -1), None
    named = entries(out)
    fitting = {key: value for key, value in named.items() if isinstance(value, Tensor) and _fits(value, n, outputs)}
    key = LOGITS if LOGITS in fitting else next(iter(fitting)) if len(fitting) == 1 else None
    if key is not None:
        value = fitting[key]
        assert isinstance(value, Tensor)
        return value.reshape(n, -1), key
    kind = type(out).__name__
    if len(fitting) > 1:
        names = ", ".join(map(repr, fitting))
        raise InputError(
            f"the network must return one tensor of logits, got {kind} in which {names} could all be the logits: "
            "say which, --output NAME"
        )
    tensors = [f"{k!r} of shape {tuple(v.shape)}" for k, v in named.items() if isinstance(v, Tensor)]
    held = f" with {', '.join(tensors[:4])}" if tensors else ""
    raise InputError(f"the network must return one tensor of logits, got {kind}{held}; {needed}")


def _wanted(out: object, n: int, outputs: int, needed: str, wanted: str | int) -> tuple[Tensor, str | int]:
    """The entry of that key; positions count in containers with names too."""
    named = entries(out)
    key: str | int | None = next((k for k in named if str(k) == str(wanted)), None)
    if key is None and str(wanted).isdecimal() and int(wanted) < len(named):
        key = list(named)[int(wanted)]
    if key is None:
        held = ", ".join(map(repr, named)) or "no entries"
        raise InputError(f"the network returns {type(out).__name__} with {held}: there is no output {wanted!r}")
    value = named[key]
    if not isinstance(value, Tensor) or not _fits(value, n, outputs):
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"the network's output {key!r} is {shape} for {n} image(s), {needed}")
    return value.reshape(n, -1), key


def _fits(value: Tensor, n: int, outputs: int) -> bool:
    if value.numel() != n * outputs or value.is_complex():
        return False
    # a squeeze() in the network takes the batch away from a batch of one
    return n == 1 or (value.ndim > 0 and value.shape[0] == n)


def _misfit(value: Tensor, n: int, needed: str) -> str:
    if value.ndim and value.shape[0] == n:
        return f"the network gives {value[:1].numel()} output(s) an image, {needed}"
    return f"the network returns shape {tuple(value.shape)} for {n} image(s), {needed}"
