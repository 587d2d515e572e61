"""Code of a network run as it is, with a derivative on the way back for what has none.

Rounding, comparing, taking the largest, detaching, ``no_grad`` and hooks hide a gradient without making a network
robust. Each gets the derivative of what it stands for: backward pass differentiable approximation (BPDA, Athalye et al.
2018, arXiv:1802.00420). What leaves torch (numpy, Pillow) cannot be followed here; see ``attacks.substitute``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeGuard
from weakref import ref

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from medrobust.draws import needs_gradient

ROUNDING = {"round", "floor", "ceil", "trunc", "fix", "floor_divide", "detach", "__floordiv__"}
"""Functions whose derivative is taken as 1 with respect to their first argument (over the second, of a division)."""
REMAINDERS = {"remainder", "fmod", "__mod__"}
"""Constant on the way back: x - x % step is rounding."""
STEPS = {"sign", "sgn", "heaviside"}
LARGER = {"gt", "ge", "greater", "greater_equal", "__gt__", "__ge__"}
SMALLER = {"lt", "le", "less", "less_equal", "__lt__", "__le__"}
BINS = {"bucketize", "searchsorted"}
LEAVING = {"numpy", "__array__", "tolist", "item", "__float__", "__int__"}
"""Refused by torch for a tensor that needs a gradient, which a detached one does not."""
SOFTNESS = 0.25
"""Width of the sigmoid that stands for a comparison, and of the softmax that stands for the largest: a share of the
standard deviation of what is compared, image by image."""


APART = 0.76
"""Distance of a function's own slopes from those of its secants, as a share of these, from which they are wrong: with a
cosine of 0.65 it is at least that."""
SHAPES = {"view", "reshape", "flatten", "contiguous", "clone", "float", "to", "type_as", "detach", "__getitem__"}
"""Functions that leave values as they are."""


class _NoHandle:
    """Of a hook that was not registered."""

    def remove(self) -> None:
        """Nothing is there to be removed."""


class StraightThrough(TorchFunctionMode):
    """While it is on, every result of torch is as it was, and gradients pass what they would not pass.

    Tensors of whole numbers and truth values have no gradients in torch: what they would be, were they soft, is kept
    beside them (``soft``) until they become floating-point numbers again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._soft: dict[int, tuple[Any, Tensor]] = {}
        self._largest: dict[int, tuple[Any, Tensor]] = {}

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "_set_grad_enabled":
            return None  # no_grad would cut the gradient
        if name in ("register_hook", "retain_grad"):
            return _NoHandle()
        first = args[0] if args else None
        if name in LEAVING and _carries(first):
            args = (first.detach(), *args[1:])
        out = func(*args, **kwargs)
        if isinstance(out, Tensor) and _carries(first):
            if name == "__get__" and out is not first and out.shape == first.shape and not out.requires_grad:
                return _through(out, first)  # .data
            if name in ROUNDING or (name in ("div", "divide") and kwargs.get("rounding_mode")):
                divided = first / args[1] if name not in ("round", "detach") and len(args) > 1 else first
                return _through(out, divided)
            if name in REMAINDERS:
                return out.detach()
            bounds = [b for b in (*args[1:], *kwargs.values()) if b is not None]
            if name in ("clamp", "clip") and len(bounds) == 2:  # with one bound it may be a ReLU
                return _through(out, first)
            if name in STEPS:
                return _through(out, torch.tanh(first / _spread(first)))
            if name in BINS:
                return self._keep(out, _position(first, args[1]))
            if not out.is_floating_point() and name in ("int", "long", "byte", "short", "char", "to", "type"):
                return self._keep(out, first)
        if name in LARGER | SMALLER and isinstance(out, Tensor) and any(map(_carries, args)):
            gap = args[0] - args[1] if name in LARGER else args[1] - args[0]
            return self._keep(out, torch.sigmoid(gap / _spread(gap)))
        if name in ("argmax", "max", "argmin", "min") and _carries(first):
            self._remember_largest(name, first, out, args, kwargs)
            return out
        if self._soft or self._largest:
            return self._softly(func, name, out, args, kwargs)
        return out

    def _remember_largest(self, name: str, values: Tensor, out: Any, args: tuple[Any, ...], kwargs: Any) -> None:
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        index = out if isinstance(out, Tensor) else out[1]
        if isinstance(dim, int) and not index.is_floating_point():
            sign = -1.0 if "min" in name else 1.0
            self._largest[id(index)] = (ref(index), (sign * values / _spread(values)).softmax(dim).movedim(dim, -1))

    def _keep(self, tensor: Tensor, soft: Tensor) -> Tensor:
        self._soft[id(tensor)] = (ref(tensor), soft)
        return tensor

    def _of(self, kept: Mapping[int, tuple[Any, Tensor]], tensor: object) -> Tensor | None:
        entry = kept.get(id(tensor)) if isinstance(tensor, Tensor) else None
        return entry[1] if entry is not None and entry[0]() is tensor else None

    def _softly(self, func: Callable[..., Any], name: str, out: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
        """The result of a function some of whose arguments are soft."""
        first = args[0] if args else None
        index = self._of(self._largest, first)
        if index is not None and isinstance(out, Tensor):
            if name == "one_hot" and out.shape == index.shape:
                return self._keep(out, index)
            if name in ("unsqueeze", "view", "reshape"):
                self._largest[id(out)] = (ref(out), index)
            return out
        found = False

        def swapped(value: Any) -> Any:
            nonlocal found
            if isinstance(value, tuple | list):
                return type(value)(map(swapped, value))
            soft = self._of(self._soft, value)
            found |= soft is not None
            return value if soft is None else soft

        soft_args = [swapped(a) for a in args]
        if not found or not isinstance(out, Tensor):
            return out
        try:
            soft = _on_soft(func, name, soft_args, kwargs)
        except (TypeError, RuntimeError, NotImplementedError):
            return out  # the function takes whole numbers or truth values only: the gradient ends here, as it did
        if not isinstance(soft, Tensor) or soft.shape != out.shape or not soft.is_floating_point():
            return out
        return _through(out, soft.to(out.dtype)) if out.is_floating_point() else self._keep(out, soft)


class Secants(TorchFunctionMode):
    """While it is on, a function of each value by itself has the slope of its secants where its own says otherwise.

    A secant spans ``SOFTNESS`` standard deviations of the values to each side: ripples and stairs that are finer hide
    no slope. Decided function by function and image by image, by the distance of the two.
    """

    def __init__(self) -> None:
        super().__init__()

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        first = args[0] if args else None
        alone = _carries(first) and not any(isinstance(a, Tensor) for a in (*args[1:], *kwargs.values()))
        name = getattr(func, "__name__", "")
        if not alone or name in SHAPES or (name.endswith("_") and not name.endswith("__")):
            return func(*args, **kwargs)
        assert isinstance(first, Tensor)
        with torch._C.DisableTorchFunction():  # detaching here means just that
            values = first.detach().clone()
        slope = _secant(lambda x: func(x, *args[1:], **kwargs), values)
        out = func(*args, **kwargs)
        if slope is None or not isinstance(out, Tensor) or out.shape != first.shape:
            return out
        disagrees, steep = slope
        with torch._C.DisableTorchFunction():
            return torch.where(disagrees, _through(out, steep * first), out)


def _secant(function: Callable[[Tensor], Any], values: Tensor) -> tuple[Tensor, Tensor] | None:
    """Which images (n, 1, …) the function's own slope is wrong for, and the slopes of secants; None where it is wrong
    for none, and for what is no function of each value by itself."""
    with torch._C.DisableTorchFunction():
        width = 2 * _spread(values)
        ends = [values + width, values - width]
    with torch.no_grad():
        out = [function(end) for end in ends]
    if not all(isinstance(o, Tensor) and o.shape == values.shape and o.is_floating_point() for o in out):
        return None
    with torch.enable_grad():
        leaf = values.clone().requires_grad_()
        own = function(leaf * 1)
        if not isinstance(own, Tensor) or not own.requires_grad:
            return None
        (slope,) = torch.autograd.grad(own.sum(), leaf)
    with torch._C.DisableTorchFunction():
        steep = ((out[0] - out[1]) / (2 * width)).detach()
        dims = tuple(range(1, values.ndim))
        disagrees = (slope - steep).square().sum(dims, True) > APART**2 * steep.square().sum(dims, True)
        if not bool(disagrees.any()):
            return None
        own, every_second = own.detach(), torch.arange(values.numel(), device=values.device).view_as(values) % 2 == 0
        others = torch.where(every_second, values, values + width)
    with torch.no_grad():
        if not torch.allclose(function(others)[every_second], own[every_second], 1e-4, 1e-6):
            return None
    return disagrees, steep


def _on_soft(func: Callable[..., Any], name: str, args: list[Any], kwargs: Any) -> Any:
    """What the function gives of truth values between 0 and 1."""
    if name in ("float", "double", "half", "bfloat16", "to", "type", "type_as", "int", "long", "byte"):
        return args[0]
    if name == "where":
        return args[0] * args[1] + (1 - args[0]) * args[2]
    if name == "masked_fill":
        return args[0] * (1 - args[1]) + args[1] * args[2]
    if name in ("logical_not", "bitwise_not", "__invert__"):
        return 1 - args[0]
    if name in ("logical_and", "bitwise_and", "__and__"):
        return args[0] * args[1]
    if name in ("logical_or", "bitwise_or", "__or__"):
        return args[0] + args[1] - args[0] * args[1]
    return func(*args, **kwargs)


def _carries(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor) and value.is_floating_point() and needs_gradient(value)


def _through(out: Tensor, instead: Tensor) -> Tensor:
    """``out`` with the gradient of ``instead``."""
    if instead.shape != out.shape:
        return out
    return out.detach() + (instead - instead.detach())


def _spread(values: Tensor) -> Tensor:
    """(n, 1, …): of each image's values; an image's result does not depend on its batch."""
    dims = tuple(range(1, values.ndim))
    spread = values.detach().std(dims, keepdim=True, correction=0) if dims else values.detach().abs()
    return SOFTNESS * spread.clamp_min(1e-6)


def _position(values: Tensor, bounds: Tensor) -> Tensor:
    """About which bin each value falls into, as a straight line from the first to the last bound."""
    low, high = bounds.min(), bounds.max()
    return (values - low) / (high - low).clamp_min(1e-12) * (bounds.numel() - 1)


@contextmanager
def without_hooks(net: nn.Module) -> Iterator[None]:
    """The network without the hooks of its modules that change gradients."""
    names = ("_backward_hooks", "_backward_pre_hooks")
    kept = [(m, n, getattr(m, n)) for m in net.modules() for n in names if getattr(m, n, None)]
    for module, name, hooks in kept:
        setattr(module, name, type(hooks)())
    try:
        yield
    finally:
        for module, name, hooks in kept:
            setattr(module, name, hooks)


@contextmanager
def functions_as_identity() -> Iterator[None]:
    """Functions with a backward of their own (``torch.autograd.Function``) pass gradients on as they come."""
    base = torch.autograd.Function
    original: Any = base.__dict__["apply"]

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        out = original.__get__(None, cls)(*args, **kwargs)
        like = next((a for a in args if _carries(a) and isinstance(out, Tensor) and a.shape == out.shape), None)
        with torch._C.DisableTorchFunction():  # detaching here means just that
            return out if like is None else _through(out, like)

    setattr(base, "apply", classmethod(apply))  # noqa: B010 (a class method cannot be assigned for a type checker)
    try:
        yield
    finally:
        setattr(base, "apply", original)  # noqa: B010


def resized(images: Tensor, shape: torch.Size) -> Tensor | None:
    """``images`` (n, c, h, w) with that channel count and size; None where channels do not fit."""
    if images.ndim != 4 or len(shape) != 4 or shape[0] != images.shape[0]:
        return None
    if images.shape[2:] != shape[2:]:
        images = F.interpolate(images, shape[2:], mode="bilinear", align_corners=False)
    if images.shape[1] == shape[1]:
        return images
    return images.expand(shape) if images.shape[1] == 1 else None
