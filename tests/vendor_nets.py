"""Networks as users bring them: what each returns for grey images of 16 px, and whether it can be used.

All of those that can be used compute the same function, ``Small``, so that their decisions are known.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

SIDE, CLASSES = 16, ("normal", "pneumonia", "other")


class Small(nn.Module):
    """Convolution, BatchNorm, linear: logits (n, outputs) of both signs."""

    def __init__(self, channels: int = 1, outputs: int = 3, statistics: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.conv = nn.Conv2d(channels, 6, 3, stride=2)
            self.norm = nn.BatchNorm2d(6, track_running_stats=statistics)
            self.head = nn.Linear(6, outputs)
        with torch.no_grad():
            self.head.weight.mul_(20)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))


class Around(nn.Module):
    """``Small``, called in another way: before(x) -> x, after(logits) -> output."""

    def __init__(
        self,
        after: Callable[[Tensor], object] | None = None,
        before: Callable[[Tensor], Tensor] | None = None,
        **kw: int,
    ) -> None:
        super().__init__()
        self.inner, self.after, self.before = Small(**kw), after, before

    def forward(self, x: Tensor) -> object:
        raw = self.inner(x if self.before is None else self.before(x))
        return raw if self.after is None else self.after(raw)


class Masked(nn.Module):
    """A buffer of -inf, as attention masks are."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small()
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 0 * self.mask.softmax(1).sum()


class Branches(nn.Module):
    """The convolution that is registered first takes colour and never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Conv2d(3, 6, 3)
        self.inner = Small()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class Mixed(nn.Module):
    """Attention over the batch, for a layout that was mistaken: an image's answer depends on its company."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small(outputs=8)
        with torch.random.fork_rng():
            torch.manual_seed(2)
            self.attention = nn.MultiheadAttention(8, 2)
            self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.inner(x)[:, None]  # (n, 1, 8) read as (tokens, batch, width)
        return self.head(self.attention(tokens, tokens, tokens)[0][:, 0])


class TwoArguments(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] * mask


class Lines(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("the driver of our scanner\nis not installed:\n  see the README of the vendor")


class Named(NamedTuple):
    logits: Tensor
    features: Tensor


class ModelOutput(OrderedDict[str, Tensor]):
    """As transformers returns it."""


@dataclass
class Answer:
    scores: Tensor
    map: Tensor


def one_by_one(x: Tensor) -> Tensor:
    if x.shape[0] != 1:
        raise RuntimeError("batch size must be 1")
    return x


def dynamic() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(Small().eval(), {nn.Linear}, torch.qint8)


def static() -> nn.Module:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prepared = prepare_fx(Small().eval(), get_default_qconfig_mapping("fbgemm"), (torch.rand(2, 1, SIDE, SIDE),))
        prepared(torch.rand(8, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(4)))
        return convert_fx(prepared)


def scripted(net: nn.Module | None = None) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script((net or Small()).eval())


def traced() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(Small().eval(), torch.rand(2, 1, SIDE, SIDE))


def frozen(net: nn.Module | None = None) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.freeze(scripted(net))


class Compiled(nn.Module):
    """As torch.compile wraps a network (its import alone takes seconds)."""

    def __init__(self) -> None:
        super().__init__()
        self._orig_mod = Small()

    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("compiled for minutes")


def broken() -> nn.Module:
    net = Small()
    with torch.no_grad():
        net.conv.weight[0, 0, 0, 0] = torch.inf
    return net


def random_dropout() -> nn.Module:
    return Around(lambda raw: nn.functional.dropout(raw, 0.3, training=True))


EXACT, CLOSE, COARSE = 1e-4, 3e-2, 3e-1
"""How near to ``Small``'s logits a network must be: the same arithmetic, half precision, 8-bit weights."""

USABLE: dict[str, tuple[Callable[[], nn.Module], float, tuple[str, ...]]] = {
    # name: (network, distance, words of its sentences)
    "plain": (Small, EXACT, ()),
    "script": (scripted, EXACT, ()),
    "trace": (traced, EXACT, ()),
    "freeze": (frozen, EXACT, ()),
    "compile": (Compiled, EXACT, ()),
    "half": (lambda: Small().half(), CLOSE, ("computes in float16",)),
    "bfloat16": (lambda: Small().bfloat16(), COARSE, ("computes in bfloat16",)),
    "double": (lambda: Small().double(), EXACT, ("computes in float64",)),
    "frozen in half": (lambda: frozen(Small().half()), CLOSE, ("computes in float16",)),
    "quantised dynamically": (dynamic, COARSE, ("No gradient reaches the image",)),
    "quantised": (static, COARSE, ("No gradient reaches the image",)),
    "tuple": (lambda: Around(lambda raw: (raw, torch.zeros(len(raw), 5))), EXACT, ("tuple of 0, 1; 0 is taken",)),
    "dict": (lambda: Around(lambda raw: {"x": raw[:, :1], "out": raw}), EXACT, ("dict of 'x', 'out'; 'out' is taken",)),
    "named tuple": (lambda: Around(lambda raw: Named(raw, -raw)), EXACT, ("Named", "'logits' is taken")),
    "model output": (
        lambda: Around(lambda raw: ModelOutput(loss=raw.sum(), logits=raw)),
        EXACT,
        ("ModelOutput", "'logits'"),
    ),
    "data class": (lambda: Around(lambda raw: Answer(raw, raw[:, 0])), EXACT, ("Answer", "'scores' is taken")),
    "mask of -inf": (Masked, EXACT, ()),
    "unused colour branch": (Branches, EXACT, ("first convolution that runs takes 1",)),
    "one image at a time": (lambda: Around(before=one_by_one), EXACT, ("one image at a time",)),
    "squeezed": (lambda: Around(lambda raw: raw.squeeze()), EXACT, ()),
    "detached": (lambda: Around(before=torch.detach), EXACT, ("No gradient reaches the image",)),
}

DOUBTFUL: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "random": (random_dropout, "The network is random"),
    "BatchNorm without statistics": (lambda: Small(statistics=False), "depends on the other images"),
    "batch taken for tokens": (Mixed, "depends on the other images"),
    "NaN for some": (
        lambda: Around(lambda raw: torch.where(raw[:, :1] > -2.65, torch.nan, raw)),
        "outputs are NaN or infinite for",
    ),
    "constant": (lambda: Around(lambda raw: 0 * raw + torch.tensor([1.0, 2.0, -1.0])), "the same outputs for all"),
}

UNUSABLE: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "None": (lambda: Around(lambda raw: None), "one tensor of logits, got NoneType"),
    "text": (lambda: Around(lambda raw: "pneumonia"), "one tensor of logits, got str"),
    "two candidates": (lambda: Around(lambda raw: (raw, -raw)), "0, 1 could all be the logits"),
    "NaN outputs": (lambda: Around(lambda raw: raw / 0 * 0), "NaN or infinite for 8 of 8"),
    "infinite weights": (broken, "NaN or infinity in 'conv.weight'"),
    "too many outputs": (lambda: Around(outputs=4), "gives 4 output(s) an image"),
    "a map": (lambda: Around(lambda raw: raw[:, :, None, None].expand(-1, -1, 4, 4)), "gives 48 output(s)"),
    "one answer a batch": (lambda: Around(lambda raw: raw.mean()), "returns shape () for 8"),
    "second argument": (TwoArguments, "'mask'"),
    "error of several lines": (Lines, "ValueError: the driver of our scanner"),
    "colour only": (lambda: Around(before=lambda x: x[:, [0, 1, 2, 3]]), "IndexError"),
    "softmax": (lambda: Around(lambda raw: raw.softmax(1)), "probabilities"),
    "sigmoid, clamped": (lambda: Around(lambda raw: raw.sigmoid().clamp(0.01, 0.99)), "probabilities"),
    "sigmoid, calibrated": (lambda: Around(lambda raw: 0.1 + 0.8 * (0.3 * raw).sigmoid()), "probabilities"),
    "softmax in half": (lambda: Around(lambda raw: raw.softmax(1)).half(), "probabilities"),
    "frozen softmax": (lambda: frozen(nn.Sequential(Small(), nn.Softmax(1))), "probabilities"),
}


def reference() -> nn.Module:
    """The function that all of USABLE compute."""
    return copy.deepcopy(Small()).eval()
