"""The kinds of operation that bounds are known for, each with an interval and a linear bound of its output.

Tensors are float64 with the rows in front. Bounds are lower ones: an upper bound is minus the lower one of the
negative.

Rounding. A network computes in float32, so its answer differs from that of the formula. Every affine operation adds at
most ``roundings`` x 2^-24 x (sum of |weight| |input| + |shift|) to each of its outputs, in whatever order it adds
(Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.1). Intervals are wider by that, and linear
bounds are lower by it: they hold for what the network computes. Not covered: convolutions by Winograd's or Fourier's
transformation and TF32, which round more than that; numbers below 1e-38.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

UNIT = 2.0**-24 * 1.01
"""Of float32, and a hundredth more for what is computed here in float64, whose own rounding is a billionth of it."""


class Interval(NamedTuple):
    """low <= value <= high, (n, ...)."""

    low: Tensor
    high: Tensor

    @property
    def size(self) -> Tensor:
        """Largest absolute value."""
        return torch.maximum(self.low.abs(), self.high.abs())


class Terms(NamedTuple):
    """A linear lower bound in terms of the inputs: a coefficient tensor (s, ...) an input, and a number (s,)."""

    coefficients: list[Tensor]
    shift: Tensor


class BoundedLayer(ABC):
    """One operation. name: of the module that it belongs to, for messages. mixes: whether an output depends on several
    numbers of one input."""

    name: str
    mixes = False

    @abstractmethod
    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        """The output itself, (n, ...)."""

    @abstractmethod
    def interval(self, inputs: Sequence[Interval]) -> Interval:
        """Bounds of the output where each input lies within its own, whatever the others are."""

    @abstractmethod
    def below(self, coefficients: Tensor, inputs: Sequence[Interval]) -> Terms:
        """A linear lower bound of sum(coefficients x output) for s sets of ``coefficients``; inputs: of one row."""

    def undecided(self, inputs: Sequence[Interval]) -> Tensor | None:
        """bool (n, ...): where narrower bounds of the only input make the linear bound better; None for nowhere."""
        del inputs
        return None


@dataclass(frozen=True)
class Linear:
    """A linear map of one input. shape: of a row of the input. absolute: with the absolute values of its weights."""

    shape: tuple[int, ...]
    forward: Callable[[Tensor], Tensor]
    absolute: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor] | None = None

    def transposed(self, coefficients: Tensor) -> Tensor:
        """Coefficients of the output (s, ...) to those of the input."""
        if self.back is not None:
            return self.back(coefficients)
        with torch.enable_grad():
            start = torch.zeros(coefficients.shape[0], *self.shape, dtype=coefficients.dtype).requires_grad_()
            (there,) = torch.autograd.grad(self.forward(start), start, coefficients)
        return there


def _products(coefficients: Tensor, numbers: Tensor) -> Tensor:
    """(s,): sum(coefficients x numbers) of coefficients (s, ...); numbers: (1, ...), or with axes of 1."""
    return coefficients.flatten(1) @ numbers.expand(1, *coefficients.shape[1:]).flatten()


class Affine(BoundedLayer):
    """A sum of linear maps and a constant. shift_size: magnitudes that enter the constant, for the rounding."""

    def __init__(
        self,
        name: str,
        parts: Sequence[Linear],
        shift: Tensor | None = None,
        roundings: int = 0,
        shift_size: Tensor | None = None,
        mixes: bool = False,
    ) -> None:
        self.name, self.parts, self.shift, self.roundings = name, tuple(parts), shift, roundings
        self.mixes = mixes
        self.shift_size = shift.abs() if shift_size is None and shift is not None else shift_size

    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        total = sum((part.forward(x) for part, x in zip(self.parts, inputs, strict=True)), torch.zeros(()))
        return total if self.shift is None else total + self.shift

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        middle = self.value([(x.low + x.high) / 2 for x in inputs])
        spread = self.rounded(inputs)
        for part, x in zip(self.parts, inputs, strict=True):
            spread = spread + part.absolute((x.high - x.low) / 2)
        return Interval(middle - spread, middle + spread)

    def rounded(self, inputs: Sequence[Interval]) -> Tensor:
        """The largest rounding error of each output, (n, ...)."""
        if not self.roundings:
            return torch.zeros((), dtype=torch.float64)
        size = sum((part.absolute(x.size) for part, x in zip(self.parts, inputs, strict=True)), torch.zeros(()))
        if self.shift_size is not None:
            size = size + self.shift_size
        # gamma_k = k u / (1 - k u)
        return size * (self.roundings * UNIT / (1 - self.roundings * UNIT))

    def below(self, coefficients: Tensor, inputs: Sequence[Interval]) -> Terms:
        shift = coefficients.new_zeros(coefficients.shape[0])
        if self.shift is not None:
            shift = shift + _products(coefficients, self.shift)
        if self.roundings:
            shift = shift - _products(coefficients.abs(), self.rounded(inputs))
        return Terms([part.transposed(coefficients) for part in self.parts], shift)


class Bent(BoundedLayer):
    """A function of each number that rises, with slopes ``slopes`` left, between and right of two places.

    ReLU: 0 up to 0, then 1. Clamping: 0, 1, 0. Leaky ReLU: a small slope, then 1.
    """

    def __init__(self, name: str, left: float, low: float, high: float, right: float) -> None:
        self.name, self.left, self.low, self.high, self.right = name, left, low, high, right

    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        (x,) = inputs
        out = x.clamp(self.low, self.high)
        if self.left:
            out = out + self.left * (x - self.low).clamp_max(0)
        if self.right:
            out = out + self.right * (x - self.high).clamp_min(0)
        return out

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        (x,) = inputs
        rounded = self._rounded(x)
        return Interval(self.value([x.low]) - rounded, self.value([x.high]) + rounded)

    def _rounded(self, x: Interval) -> Tensor:
        """A product and a sum at most; without them, what is lost here in float64."""
        return x.size * (4 * UNIT if self.left or self.right else 1e-13)

    def undecided(self, inputs: Sequence[Interval]) -> Tensor:
        (x,) = inputs
        return ((x.low < self.low) & (x.high > self.low)) | ((x.low < self.high) & (x.high > self.high))

    def below(self, coefficients: Tensor, inputs: Sequence[Interval]) -> Terms:
        (x,) = inputs
        (below_slope, below_shift), (above_slope, above_shift) = self.lines(x)
        positive, rounded = coefficients.clamp_min(0), self._rounded(x)
        negative = coefficients - positive
        shift = _products(positive, below_shift - rounded) + _products(negative, above_shift + rounded)
        return Terms([(negative * above_slope).addcmul_(positive, below_slope)], shift)

    def lines(self, x: Interval) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(slope, shift) of a line below and of one above the function between the two ends of ``x``.

        One of the two is the chord, where the function is convex or concave there; the other touches the function at a
        bend with the slope of one of its sides, that with the smaller area (Zhang et al. 2018). Where it is neither (a
        clamp that is met on both sides), both are lines through an end.
        """
        at_low, at_high = self.value([x.low]), self.value([x.high])
        width = x.high - x.low
        chord = torch.where(width > 0, (at_high - at_low) / width.clamp_min(1e-300), torch.zeros_like(width))
        slopes = list(dict.fromkeys((0.0 if self.low < self.high else None, self.left, 1.0, self.right, None)))
        return self._best(x, chord, slopes, above=False), self._best(x, chord, slopes, above=True)

    def _best(
        self, x: Interval, chord: Tensor, slopes: Sequence[float | None], *, above: bool
    ) -> tuple[Tensor, Tensor]:
        """Of lines with these slopes (None: the chord's), each moved until it is on that side, the one that is nearest
        to the function in the middle."""
        middle = (x.low + x.high) / 2
        bends = [at for at in (self.low, self.high) if math.isfinite(at)]
        places = [x.low, x.high, *(torch.full_like(x.low, at).maximum(x.low).minimum(x.high) for at in bends)]
        values = [self.value([place]) for place in places]
        best: tuple[Tensor, Tensor, Tensor] | None = None
        for slope in slopes:
            tilt = chord if slope is None else torch.full_like(chord, slope)
            # the difference is linear between the places, so its extremes are there
            apart = torch.stack([value - tilt * place for value, place in zip(values, places, strict=True)])
            shift = apart.amax(0) if above else apart.amin(0)
            high = tilt * middle + shift if above else -(tilt * middle + shift)
            if best is None:
                best = tilt, shift, high
            else:
                nearer = high < best[2]
                best = tuple(torch.where(nearer, a, b) for a, b in zip((tilt, shift, high), best, strict=True))  # type: ignore[assignment]
        assert best is not None
        return best[0], best[1]


class MaxPool(BoundedLayer):
    """The largest number of each window of the last two axes. windows: int64 (places, windows), positions in the padded
    row of a channel, in which the last position stands for everything outside of the image."""

    def __init__(self, name: str, shape: tuple[int, ...], out: tuple[int, ...], windows: Tensor) -> None:
        self.name, self.shape, self.out, self.windows = name, shape, out, windows

    def _windows(self, x: Tensor) -> Tensor:
        """(n, channels, places, windows)."""
        return F.pad(x.flatten(2), (0, 1), value=-torch.inf)[:, :, self.windows]

    def value(self, inputs: Sequence[Tensor]) -> Tensor:
        return self._windows(inputs[0]).amax(2).view(-1, *self.out)

    def interval(self, inputs: Sequence[Interval]) -> Interval:
        return Interval(self.value([inputs[0].low]), self.value([inputs[0].high]))

    def below(self, coefficients: Tensor, inputs: Sequence[Interval]) -> Terms:
        """Below: the number with the largest lower bound. Above: that one too where no other can exceed it, else the
        largest upper bound."""
        low, high = self._windows(inputs[0].low), self._windows(inputs[0].high)
        top, chosen = low.max(2, keepdim=True)
        largest_other = high.scatter(2, chosen, -torch.inf).amax(2)
        alone = largest_other <= top[:, :, 0]
        positive, negative = coefficients.flatten(2).clamp_min(0), coefficients.flatten(2).clamp_max(0)
        shift = (negative * torch.where(alone, 0.0, high.amax(2))).flatten(1).sum(1)
        s, channels = coefficients.shape[:2]
        place = self.windows.expand(*chosen.shape[:2], -1, -1).gather(2, chosen)[:, :, 0]
        back = coefficients.new_zeros(s, channels, self.shape[1] * self.shape[2] + 1)
        back.scatter_add_(2, place.expand(s, -1, -1), positive + negative * alone)
        return Terms([back[:, :, :-1].reshape(s, *self.shape)], shift)
