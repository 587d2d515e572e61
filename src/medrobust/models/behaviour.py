"""A digest of what a network computes: weights and buffers by their bytes, answers and gradients on fixed images, and
the code of its classes where that is the user's own.

The same weights in a network whose ``forward`` was changed give another digest. Answers are compared in float64 and
rounded: how many threads add up, and in which order, moves the last of 15 digits, and 4 are kept.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from medrobust import code_digest, seeds
from medrobust.models.black_box import BlackBoxModel

SIDES = (64, 224, 32, 28, 16, 8)
"""Sides in pixels that are tried where a network does not state its own."""
IMAGES = 1
OUTPUTS = 32
"""Outputs of each image that count, and numbers of each image's gradient."""
LARGE = 50_000_000
"""Parameters above which no float64 copy is made: answers are then rounded to one digit."""


def behaviour(net: nn.Module, prepare: Callable[[Tensor], Tensor], channels: int | None, size: int | None) -> str:
    """sha256 (hex). net: in evaluation mode. prepare: pixels in [0, 1] (n, c, h, w) to what ``net`` takes."""
    digest = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        else:  # packed weights of a quantised network
            digest.update(f"{name}{type(value).__name__}".encode())
    digest.update(answers(net, prepare, channels, size).encode())
    if isinstance(net, BlackBoxModel):
        digest.update(code_digest.of_function(net.answer).encode())
    for code in sorted({code_digest.of_class(kind) for kind in _own_classes(net)}):
        digest.update(code.encode())
    return digest.hexdigest()


def state(net: nn.Module) -> tuple[object, ...]:
    """Changes where the network's weights, plain settings or functions change: a digest may be kept until then."""
    return weights_state(net), tuple(_settings(net))


def weights_state(net: nn.Module) -> tuple[tuple[int, int, torch.device], ...]:
    """Changes where a weight or buffer changes, is replaced or moves to another device."""
    return tuple((w.data_ptr(), w._version, w.device) for w in (*net.parameters(), *net.buffers()))


def answers(net: nn.Module, prepare: Callable[[Tensor], Tensor], channels: int | None, size: int | None) -> str:
    """Rounded outputs and gradients on fixed images; in words where there are none to compare."""
    exact = sum(p.numel() for p in net.parameters()) <= LARGE
    for side in (size,) if size else SIDES:
        images = seeds.uniform(0, "behaviour", range(IMAGES), (channels or 1, side, side)) / 2 + 0.5
        for double in (True, False) if exact else (False,):
            outputs = _rounded(net, prepare, images, double)
            if outputs is not None:
                return outputs
    return "no answer"


def _rounded(net: nn.Module, prepare: Callable[[Tensor], Tensor], images: Tensor, double: bool) -> str | None:
    """None where the network does not take these images, or not in float64."""
    device = next((w.device for w in (*net.parameters(), *net.buffers())), torch.device("cpu"))
    try:
        used = copy.deepcopy(net).double() if double else net
        images = images.to(device, torch.float64 if double else torch.float32)
        with torch.enable_grad():
            outputs = _numbers(used, prepare, images)
        with torch.no_grad():
            again = _numbers(used, prepare, images)
    except Exception:  # a network may raise whatever it likes on images that it was not made for
        return None
    if not torch.allclose(outputs[0], again[0], rtol=1e-3, atol=1e-6, equal_nan=True):
        return "other answers each time"
    return " ".join(_coarse(part, 2**14 if double else 2**3) for part in outputs)


def _numbers(net: nn.Module, prepare: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, ...]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        images = images.clone().requires_grad_(torch.is_grad_enabled())
        raw = net(prepare(images)).reshape(len(images), -1)
        outputs = raw[:, :OUTPUTS]
        if not raw.requires_grad:
            return (outputs.detach(),)
        pull = torch.linspace(1, 2, outputs.numel(), dtype=outputs.dtype, device=outputs.device).view_as(outputs)
        (gradient,) = torch.autograd.grad((outputs * pull).sum(), images, allow_unused=True)
    if gradient is None:
        return (outputs.detach(),)
    parts = [part.sum(1) for part in gradient.flatten(1).chunk(OUTPUTS, 1)]
    return outputs.detach(), torch.stack(parts, 1)


def _coarse(values: Tensor, levels: int) -> str:
    """Whole numbers: shares of the power of two above the largest, in steps of 1 / levels."""
    values = values.double().cpu()
    top = float(values.abs().max()) if values.numel() else 0.0
    if not math.isfinite(top):
        return "not finite"
    exponent = math.ceil(math.log2(top)) if top > 0 else 0
    steps = (values / 2.0**exponent * levels).round().long().flatten().tolist()
    return f"2^{exponent}: {steps}"


def _own_classes(net: nn.Module) -> Iterator[type]:
    """The user's classes among the network's modules; of other ones the answers tell."""
    for kind in {type(module) for module in net.modules()}:
        if kind.__module__.partition(".")[0] != code_digest.PACKAGE and code_digest.is_own(kind.__module__):
            yield kind


def _settings(net: nn.Module) -> Iterator[object]:
    for module in net.modules():
        yield inspect.getattr_static(type(module), "forward", None)  # TorchScript computes the attribute itself
        for name, value in vars(module).items():
            if name != "training" and (callable(value) or isinstance(value, (bool, int, float, str, tuple))):
                yield name, id(value) if callable(value) else repr(value)
