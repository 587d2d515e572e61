"""A network that returns probabilities, read as one that returns logits.

Attacks and judging work on logits: differences of probabilities vanish where a network is sure of itself, and with
them the gradient. Three ways, the best that is there:

1. The last operation is a sigmoid or softmax (or several sigmoids, joined): what went into it are the logits, and
   nothing is lost. Of a sigmoid for each of k exclusive classes too: the largest decides either way.
2. Anything else (calibration, clamping, the mean of an ensemble) is inverted: log p, or log p - log(1 - p).
3. Rows in which a probability is too close to 0 or 1 to be inverted in float32 are computed again in float64.

While the network runs, a sigmoid's derivative is computed from its input instead of its rounded output, so that it does
not become 0, and clamping to a part of [0, 1] lets the gradient pass (straight-through estimator, Bengio et al. 2013,
arXiv:1308.3432; BPDA, Athalye et al. 2018, arXiv:1802.00420). Values are never changed by this.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medrobust.models.behaviour import weights_state

NEAR_ONE = 1e-4
"""Distance to 1 below which float32 resolves a probability of one decision to less than 1e-3 of its odds."""
NEAR_ZERO = 1e-6
"""The same for 0: a probability may have been computed as 1 - p."""
SIGMOIDS = {torch.sigmoid, Tensor.sigmoid, torch.special.expit, F.sigmoid}
SOFTMAXES = {torch.softmax, Tensor.softmax, F.softmax, torch.special.softmax}
CLAMPS = {torch.clamp, Tensor.clamp, torch.clip, Tensor.clip}
JOINED = {torch.cat, torch.concat, torch.stack, torch.hstack}
RESHAPED = {
    *(torch.squeeze, torch.unsqueeze, torch.reshape, torch.flatten, torch.select),
    *(Tensor.squeeze, Tensor.unsqueeze, Tensor.reshape, Tensor.view, Tensor.flatten, Tensor.select),
    *(Tensor.__getitem__, Tensor.float, Tensor.double, Tensor.to, Tensor.contiguous, Tensor.clone),
}
"""Operations that move numbers and do not change them (but by rounding)."""
ONE_LESS = {torch.rsub, Tensor.__rsub__}


class _Sigmoid(torch.autograd.Function):
    """torch's sigmoid with a derivative that is 0 only where exp(-|x|) is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.sigmoid(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        small = (-x.abs()).exp()
        gradient: Tensor = grads[0] * small / (1 + small).square()
        return gradient


class Origin(NamedTuple):
    """What a tensor of probabilities was made of. inputs: of the operation, in the shape of the probabilities."""

    probabilities: Tensor
    inputs: Tensor
    softmax: bool


class Watching(TorchFunctionMode):
    """Remembers what went into each sigmoid and softmax, and keeps gradients alive.

    A network that was compiled to TorchScript is not seen by it: its outputs are inverted.
    """

    def __init__(self) -> None:
        super().__init__()
        self.origins: dict[int, Origin] = {}
        """By ``id`` of the probabilities, which are kept, so that no other tensor gets that id."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        named: dict[str, object] = kwargs or {}
        first = args[0] if args and isinstance(args[0], Tensor) else None
        if func in SIGMOIDS and first is not None and len(args) == 1 and first.is_floating_point():
            out: Any = _Sigmoid.apply(first)
            self.remember(out, first, softmax=False)
        elif func in CLAMPS and first is not None and _within_unit(args[1:], named):
            with torch.no_grad():
                step = func(*args, **named) - first
            out = first + step
        else:
            out = func(*args, **named)
            if func in SOFTMAXES and first is not None:
                self.remember(out, first, softmax=True)
            elif func in RESHAPED and (origin := self.origins.get(id(first))) is not None:
                self.remember(out, func(origin.inputs, *args[1:], **named), origin.softmax)
            elif func in ONE_LESS and args[1:] == (1,) and not named and (origin := self.origins.get(id(first))):
                if not origin.softmax:
                    self.remember(out, -origin.inputs, softmax=False)
            elif func in JOINED and isinstance(args[0], (tuple, list)):
                parts = [self.origins.get(id(part)) for part in args[0]]
                sigmoids = [part.inputs for part in parts if part is not None and not part.softmax]
                if len(sigmoids) == len(parts):
                    self.remember(out, func(sigmoids, *args[1:], **named), softmax=False)
        return out

    def remember(self, probabilities: Tensor, inputs: Tensor, softmax: bool) -> None:
        self.origins[id(probabilities)] = Origin(probabilities, inputs, softmax)


def _within_unit(bounds: tuple[Any, ...], named: Mapping[str, Any]) -> bool:
    given = [b for b in (*bounds, *named.values()) if b is not None]
    return bool(given) and all(isinstance(b, (int, float)) and 0 <= b <= 1 for b in given)


def to_logits(
    net: nn.Module, run: Callable[[nn.Module, torch.dtype], Tensor], n: int, dtype: torch.dtype, exclusive: bool
) -> Tensor:
    """Logits, float32 (n, outputs), of a network that returns probabilities.

    run: calls a network in that type; gives the tensor that it returned for n images. exclusive: one of k classes
    (log p; differences count), else a yes or no an output. The decisions (argmax, p > 0.5) are those of the
    probabilities in every row.
    """
    probabilities, logits = _read(net, run, n, dtype, exclusive)
    if logits is None:
        logits = inverted(probabilities, exclusive)
        saturated = _saturated(probabilities, exclusive)
        if dtype != torch.float64 and bool(saturated.any()) and (double := _double(net)) is not None:
            exact, read = _read(double, run, n, torch.float64, exclusive)
            read = inverted(exact, exclusive) if read is None else read
            logits = torch.where(saturated[:, None], read, logits.double())
    return _agreeing(logits.float(), probabilities.detach(), exclusive)


def _read(
    net: nn.Module, run: Callable[[nn.Module, torch.dtype], Tensor], n: int, dtype: torch.dtype, exclusive: bool
) -> tuple[Tensor, Tensor | None]:
    """(probabilities (n, outputs), logits of that shape where the last operation tells them)."""
    with Watching() as watching:
        out = run(net, dtype)
    origin, out = watching.origins.get(id(out)), out.reshape(n, -1)
    if origin is None or origin.inputs.numel() != out.numel() or (origin.softmax and not exclusive):
        return out, None
    inputs = origin.inputs.reshape(n, -1).to(torch.promote_types(origin.inputs.dtype, torch.float32))
    with torch.no_grad():  # a softmax over another axis
        again = inputs.softmax(1) if origin.softmax else inputs.sigmoid()
        if not torch.allclose(again, out.to(again.dtype), atol=1e-2):
            return out, None
    return out, inputs


def inverted(p: Tensor, exclusive: bool) -> Tensor:
    """Logits (n, k) of probabilities: log p up to a constant of classes that exclude each other, else the log-odds."""
    if p.dtype in (torch.float16, torch.bfloat16):
        p = p.float()
    info = torch.finfo(p.dtype)
    low = info.tiny
    high = 1.0 if exclusive else 1 - info.eps / 2
    p = p + (p.detach().clamp(low, high) - p.detach())  # rounding takes some a little outside
    if exclusive:
        return (p / p.detach().amax(1, keepdim=True)).log()  # the largest is exactly 0, all others are below
    return p.log() - (1 - p).log()


def _saturated(p: Tensor, exclusive: bool) -> Tensor:
    """bool (n,): rows with a probability that its type does not resolve."""
    low = p < NEAR_ZERO
    return (low if exclusive else low | (p > 1 - NEAR_ONE)).any(1)


def _agreeing(logits: Tensor, p: Tensor, exclusive: bool) -> Tensor:
    """Logits moved by the least where rounding (p is 1 twice, or 0.5) would make them decide otherwise than p."""
    with torch.no_grad():
        step = torch.zeros_like(logits)
        if exclusive:
            decided = p.argmax(1, keepdim=True)
            own = logits.gather(1, decided)
            top = logits.amax(1, keepdim=True)
            # the first of equal ones wins an argmax: strictly above the largest is above all
            higher = torch.nextafter(top, torch.full_like(top, torch.inf))
            wrong = logits.argmax(1, keepdim=True) != decided
            step.scatter_(1, decided, torch.where(wrong, higher - own, 0.0))
        else:
            wrong = (logits > 0) != (p > 0.5)
            tiny = torch.where(p > 0.5, torch.finfo(logits.dtype).tiny, 0.0)
            step = torch.where(wrong, tiny - logits, step)
    return logits + step


_DOUBLES: WeakKeyDictionary[nn.Module, tuple[object, nn.Module | None]] = WeakKeyDictionary()


def _double(net: nn.Module) -> nn.Module | None:
    """A copy in float64, made again when weights have changed; None where the network cannot be copied."""
    state = weights_state(net)
    kept = _DOUBLES.get(net)
    if kept is None or kept[0] != state:
        try:
            made: nn.Module | None = copy.deepcopy(net).double()
        except (RuntimeError, TypeError, NotImplementedError):
            made = None  # quantised or compiled code: the float32 answer stays
        kept = state, made
        _DOUBLES[net] = kept
    return kept[1]
