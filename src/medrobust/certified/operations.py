"""Which of torch's operations bounds are known for, and how each becomes a layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import grad

from medrobust.certified.layers import Affine, Bent, BoundedLayer, Linear, MaxPool


class UncoveredOperation(Exception):  # noqa: N818 - not an error of the program: the caller turns it into its advice
    """An operation that no bound is known for; names the layer."""


@dataclass(frozen=True)
class Call:
    """One call of an operation. places: of each argument that depends on the images its position, else None."""

    name: str
    module: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    places: tuple[Any, ...] = ()
    shapes: Sequence[tuple[int, ...]] = ()

    def reading(self, position: Callable[[object], int | None], shapes: Sequence[tuple[int, ...]]) -> Call:
        """With the positions of its arguments; of a list of tensors, a list of them."""
        places = tuple([position(v) for v in a] if isinstance(a, (list, tuple)) else position(a) for a in self.args)
        if any(position(v) is not None for v in self.kwargs.values()):
            raise self.refused()
        return replace(self, places=places, shapes=shapes)

    def refused(self, why: str = "") -> UncoveredOperation:
        what = f"aten.{self.name}" + (f": {why}" if why else "")
        return UncoveredOperation(f"layer {self.module} is not covered by linear bounds ({what})")

    def get(self, index: int, name: str, default: Any = None) -> Any:
        """An argument by position or name."""
        return self.args[index] if len(self.args) > index else self.kwargs.get(name, default)

    def only_first(self) -> int:
        """The position of the first argument; refused where another depends on the images."""
        place, *others = self.places
        if not isinstance(place, int) or any(p is not None and (not isinstance(p, list) or any(p)) for p in others):
            raise self.refused("a weight depends on the image")
        return place

    def constant(self, value: Any, ndim: int) -> Tensor:
        """A constant as float64 that is the same for every image; ndim: axes of what it is combined with."""
        out = torch.as_tensor(value).detach().double().cpu().clone()
        if out.ndim > ndim:
            raise self.refused("a constant has more axes than the images")
        if out.ndim == ndim and out.shape[0] > 1:
            if not bool((out == out[:1]).all()):
                raise self.refused("a constant differs between images")
            out = out[:1]
        return out


Made = tuple[BoundedLayer, Sequence[int]] | int
"""A layer and what it reads; or the position whose values the result has."""
Builder = Callable[[Call, tuple[int, ...]], Made]


def _moved(move: Callable[[Tensor], Tensor], call: Call) -> Made:
    """Numbers that are moved and not changed, each image for itself."""
    place = call.only_first()
    return Affine(call.module, [Linear(call.shapes[place], move, move)]), [place]


def _same(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    dtype = call.kwargs.get("dtype")
    if dtype not in (None, torch.float32, torch.float64):
        raise call.refused("it computes in low precision")
    return call.only_first()


def _restrided(call: Call, shape: tuple[int, ...]) -> Made:
    """Only where it leaves every number in its place: after average pooling of channels-last images."""
    del shape
    if not call.kwargs.get("same"):
        raise call.refused("memory is read in another order")
    return call.only_first()


def _reshaped(call: Call, shape: tuple[int, ...]) -> Made:
    return _moved(lambda x: x.reshape(x.shape[0], *shape), call)


def _expanded(call: Call, shape: tuple[int, ...]) -> Made:
    if len(shape) != len(call.shapes[call.only_first()]):
        raise call.refused("it adds axes")
    return _moved(lambda x: x.expand(-1, *shape), call)


def _axes(call: Call, axes: Sequence[int], ndim: int) -> list[int]:
    """Axes from the front; refused where the images of a batch are concerned."""
    every = [a % ndim for a in axes]
    if 0 in every:
        raise call.refused("it goes over the images of a batch")
    return every


def _ndim(call: Call) -> int:
    return len(call.shapes[call.only_first()]) + 1


def _sliced(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    (axis,) = _axes(call, [call.get(1, "dim", 0)], _ndim(call))
    start, end, step = call.get(2, "start"), call.get(3, "end"), call.get(4, "step", 1)
    index = (slice(None),) * axis + (slice(start, end, step),)
    return _moved(lambda x: x[index], call)


def _selected(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    (axis,) = _axes(call, [call.get(1, "dim")], _ndim(call))
    return _moved(lambda x: x.select(axis, call.get(2, "index")), call)


def _permuted(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    axes = [a % _ndim(call) for a in call.get(1, "dims")]
    if axes[0] != 0:
        raise call.refused("it goes over the images of a batch")
    return _moved(lambda x: x.permute(axes), call)


def _transposed(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    one, other = _axes(call, [call.get(1, "dim0"), call.get(2, "dim1")], _ndim(call))
    return _moved(lambda x: x.transpose(one, other), call)


def _padded(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    place = call.only_first()
    pad, value = list(call.get(1, "pad")), float(call.get(2, "value", 0.0))
    if len(pad) > 2 * len(call.shapes[place]):
        raise call.refused("it goes over the images of a batch")
    zeros = torch.zeros(1, *call.shapes[place], dtype=torch.float64)
    shift = F.pad(zeros, pad, value=value) if value else None
    part = Linear(call.shapes[place], lambda x: F.pad(x, pad), lambda x: F.pad(x, pad))
    return Affine(call.module, [part], shift), [place]


def _joined(call: Call, shape: tuple[int, ...]) -> Made:
    """cat: each part at its place among zeros, constants in the shift."""
    (axis,) = _axes(call, [call.get(1, "dim", 0)], len(shape) + 1)
    parts, places, start = [], [], 0
    shift = torch.zeros(1, *shape, dtype=torch.float64)
    for tensor, place in zip(call.args[0], call.places[0], strict=True):
        width = tensor.shape[axis]
        if place is None:
            constant = call.constant(tensor, len(shape) + 1)
            shift.narrow(axis, start, width).copy_(constant)
        else:
            before = [0, 0] * (len(shape) - axis) + [start, shape[axis - 1] - start - width]
            parts.append(Linear(call.shapes[place], *[lambda x, pad=before: F.pad(x, pad)] * 2))
            places.append(place)
        start += width
    return Affine(call.module, parts, shift), places


def _convolution(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    place = call.only_first()
    weight, bias = (None if v is None else v.detach().double().cpu() for v in call.args[1:3])
    stride, padding, dilation, transposed, _, groups = call.args[3:9]
    if transposed or weight is None or weight.ndim not in (3, 4):
        raise call.refused()
    convolve = F.conv2d if weight.ndim == 4 else F.conv1d
    back_of = grad.conv2d_input if weight.ndim == 4 else grad.conv1d_input
    row = call.shapes[place]

    def run(weights: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda x: convolve(x, weights, None, stride, padding, dilation, groups)

    def back(a: Tensor) -> Tensor:
        given = ((a.shape[0], *row), weight, a, stride, padding, dilation, groups)
        return back_of(*given)  # type: ignore[no-any-return, no-untyped-call]

    part = Linear(row, run(weight), run(weight.abs()), back)
    shift = None if bias is None else bias.view(1, -1, *[1] * (weight.ndim - 2))
    return Affine(call.module, [part], shift, weight[0].numel() + 1, mixes=True), [place]


def _matrix(call: Call, place: int, weight: Tensor, bias: Tensor | None) -> Made:
    """weight: (inputs, outputs)."""
    size = weight.abs()
    part = Linear(call.shapes[place], lambda x: x @ weight, lambda x: x @ size, lambda a: a @ weight.mT)
    return Affine(call.module, [part], bias, weight.shape[0] + 1, mixes=True), [place]


def _addmm(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    place, ones = call.places[1], (call.kwargs.get("beta", 1), call.kwargs.get("alpha", 1))
    if place is None or call.places[0] is not None or call.places[2] is not None or ones != (1, 1):
        raise call.refused("a weight depends on the image")
    weight = torch.as_tensor(call.args[2]).detach().double().cpu()
    return _matrix(call, place, weight, call.constant(call.args[0], 2))


def _mm(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    return _matrix(call, call.only_first(), torch.as_tensor(call.args[1]).detach().double().cpu(), None)


def _scaled(call: Call, place: int, factor: Tensor, shift: Tensor | None, roundings: int, size: Any = None) -> Made:
    absolute, row = factor.abs(), call.shapes[place]
    wider = any(f > 1 and r == 1 for f, r in zip(factor.shape[::-1], row[::-1], strict=False))
    back = None if wider else lambda a: a * factor  # where it is repeated by the factor, gradients add it up again
    part = Linear(row, lambda x: x * factor, lambda x: x * absolute, back)
    return Affine(call.module, [part], shift, roundings, size), [place]


def _batch_norm(call: Call, shape: tuple[int, ...]) -> Made:
    place = call.only_first()
    weight, bias, mean, var = (None if v is None else v.detach().double().cpu() for v in call.args[1:5])
    training, eps = (False, call.args[6]) if "no_training" in call.name else (call.args[5], call.args[7])
    if training or mean is None or var is None:
        raise call.refused("BatchNorm uses the statistics of the batch")
    scale = (var + eps).rsqrt() * (1 if weight is None else weight)
    offset = torch.zeros_like(mean) if bias is None else bias
    wide = (1, -1, *[1] * (len(shape) - 1))
    size = ((mean * scale).abs() + offset.abs()).view(wide)
    return _scaled(call, place, scale.view(wide), (offset - mean * scale).view(wide), 8, size)


def _mean(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    place, ndim = call.only_first(), _ndim(call)
    axes, keep = call.get(1, "dim"), bool(call.get(2, "keepdim", False))
    axes = _axes(call, axes or range(ndim), ndim)
    counted = math.prod(call.shapes[place][a - 1] for a in axes)
    reduce = torch.Tensor.mean if call.name == "mean" else torch.Tensor.sum
    run = [lambda x: reduce(x, dim=axes, keepdim=keep)] * 2
    return Affine(call.module, [Linear(call.shapes[place], *run)], None, counted + 1, mixes=True), [place]


def _average_pool(call: Call, shape: tuple[int, ...]) -> Made:
    place = call.only_first()
    row = call.shapes[place]
    if call.name == "avg_pool2d":
        kernel = call.get(1, "kernel_size")
        stride, padding = call.get(2, "stride") or kernel, call.get(3, "padding", 0)
        ceil, counted, divisor = (
            call.get(4, "ceil_mode", False),
            call.get(5, "count_include_pad", True),
            call.get(6, "divisor_override"),
        )
        run = [lambda x: F.avg_pool2d(x, kernel, stride, padding, ceil, counted, divisor)] * 2
        terms = math.prod(kernel) if len(kernel) > 1 else kernel[0] ** 2
    else:
        run = [lambda x: F.adaptive_avg_pool2d(x, shape[-2:])] * 2  # type: ignore[arg-type]
        terms = row[-1] * row[-2]
    return Affine(call.module, [Linear(row, *run)], None, terms + 1, mixes=True), [place]


def _max_pool(call: Call, shape: tuple[int, ...]) -> Made:
    place = call.only_first()
    row = call.shapes[place]
    if len(row) != 3:
        raise call.refused()

    def pair(value: Any) -> tuple[int, int]:
        many = list(value) if isinstance(value, (list, tuple)) else [value]
        return (many[0], many[-1])

    kernel = pair(call.get(1, "kernel_size"))
    stride = pair(call.get(2, "stride") or kernel)
    padding, dilation = pair(call.get(3, "padding", 0)), pair(call.get(4, "dilation", 1))
    rows, columns = (
        torch.arange(out)[:, None] * s + torch.arange(k) * d - p
        for out, s, k, d, p in zip(shape[-2:], stride, kernel, dilation, padding, strict=True)
    )
    height, width = row[-2:]
    inside = ((rows >= 0) & (rows < height))[:, None, :, None] & ((columns >= 0) & (columns < width))[None, :, None, :]
    position = rows[:, None, :, None] * width + columns[None, :, None, :]
    windows = torch.where(inside, position, height * width).flatten(2).flatten(0, 1).T.contiguous()
    return MaxPool(call.module, row, shape, windows), [place]


def _product(call: Call, shape: tuple[int, ...]) -> Made:
    """mul and div by a constant."""
    first, second = call.places[0], call.places[1] if len(call.places) > 1 else None
    if first is not None and second is not None:
        raise call.refused("two numbers that depend on the image are multiplied")
    if call.name == "div" and (first is None or call.kwargs.get("rounding_mode")):
        raise call.refused("it divides by a number that depends on the image")
    place, other = (second, call.args[0]) if first is None else (first, call.args[1])
    assert place is not None  # one of the two depends on the image
    factor = call.constant(other, len(shape) + 1)
    return _scaled(call, place, 1 / factor if call.name == "div" else factor, None, 1 + (call.name == "div"))


def _spread(factor: float, shape: tuple[int, ...]) -> Callable[[Tensor], Tensor]:
    """A product, repeated to ``shape``."""
    return lambda x: (x * factor).expand(-1, *shape)


def _sum(call: Call, shape: tuple[int, ...]) -> Made:
    """add, sub and rsub, of two numbers of which one at least depends on the image; alpha: factor of the second."""
    alpha = float(call.kwargs.get("alpha", 1))
    signs = {"add": (1.0, alpha), "sub": (1.0, -alpha), "rsub": (-alpha, 1.0)}[call.name]
    parts, places, shift = [], [], None
    for value, place, sign in zip(call.args[:2], call.places[:2], signs, strict=True):
        if place is None:
            shift = call.constant(value, len(shape) + 1) * sign
            continue
        row = call.shapes[place]
        if len(row) != len(shape):
            raise call.refused("it adds tensors of other shapes")
        parts.append(Linear(row, _spread(sign, shape), _spread(abs(sign), shape)))
        places.append(place)
    return Affine(call.module, parts, shift, 1 if abs(alpha) == 1 else 2), places


def _negative(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    place = call.only_first()
    return Affine(call.module, [Linear(call.shapes[place], lambda x: -x, lambda x: x, lambda a: -a)]), [place]


def _bent(call: Call, shape: tuple[int, ...]) -> Made:
    del shape
    place, low, high, left, right = call.only_first(), 0.0, math.inf, 0.0, 0.0
    if call.name == "leaky_relu":
        high, left, right = 0.0, float(call.get(1, "negative_slope", 0.01)), 1.0
    elif call.name != "relu":
        lowest, highest = {
            "hardtanh": (call.get(1, "min_val", -1.0), call.get(2, "max_val", 1.0)),
            "clamp": (call.get(1, "min"), call.get(2, "max")),
            "clamp_min": (call.get(1, "min"), None),
            "clamp_max": (None, call.get(1, "max")),
        }[call.name]
        if any(isinstance(v, Tensor) for v in (lowest, highest)):
            raise call.refused("its limits differ between numbers")
        low = -math.inf if lowest is None else float(lowest)
        high = math.inf if highest is None else float(highest)
    if not 0 <= left <= 1:
        raise call.refused("its slope is not between 0 and 1")
    return Bent(call.module, left, low, high, right), [place]


OPERATIONS: dict[str, Builder] = {
    **dict.fromkeys(("detach", "alias", "clone", "_to_copy", "lift_fresh"), _same),
    **dict.fromkeys(("view", "_unsafe_view", "unsqueeze", "squeeze"), _reshaped),
    "as_strided": _restrided,
    "expand": _expanded,
    "slice": _sliced,
    "select": _selected,
    "permute": _permuted,
    "transpose": _transposed,
    "constant_pad_nd": _padded,
    "cat": _joined,
    "convolution": _convolution,
    "addmm": _addmm,
    "mm": _mm,
    **dict.fromkeys(("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm"), _batch_norm),
    **dict.fromkeys(("mean", "sum"), _mean),
    **dict.fromkeys(("avg_pool2d", "_adaptive_avg_pool2d"), _average_pool),
    "max_pool2d_with_indices": _max_pool,
    **dict.fromkeys(("mul", "div"), _product),
    **dict.fromkeys(("add", "sub", "rsub"), _sum),
    "neg": _negative,
    **dict.fromkeys(("relu", "hardtanh", "leaky_relu", "clamp", "clamp_min", "clamp_max"), _bent),
}
"""By the name below ``aten``, without the underscore of those that work in place."""
