"""Search spaces: a box of real numbers, and spaces of named real, integer and binary values decoded from one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medrobust.errors import InputError


class Box:
    """All points between ``low`` and ``high``.

    low, high: tensors (D,), or (S, D) where every row (seed, image) has bounds of its own, or plain numbers for all
        of ``dims`` dimensions. Finite, low < high nowhere violated (low == high holds a dimension still).
    dtype: what is computed in; by default the tensors' own, float32 for plain numbers.
    """

    def __init__(
        self, low: Tensor | float, high: Tensor | float, dims: int | None = None, dtype: torch.dtype | None = None
    ) -> None:
        given = [bound.dtype for bound in (low, high) if isinstance(bound, Tensor) and bound.is_floating_point()]
        dtype = dtype or (given[0] if given else torch.float32)
        if dtype not in (torch.float32, torch.float64):
            raise InputError(f"a search computes in float32 or float64, not in {dtype}; give dtype=torch.float32")
        bottom, top = torch.as_tensor(low, dtype=dtype), torch.as_tensor(high, dtype=dtype)
        try:
            bottom, top = torch.broadcast_tensors(bottom, top)
            if dims is not None:
                bottom, top = (b.expand(*b.shape[:-1], dims) for b in (bottom, top))
        except RuntimeError:
            shapes = f"low has shape {tuple(bottom.shape)}, high {tuple(top.shape)}, dims is {dims}"
            raise InputError(f"bounds must agree in shape: {shapes}") from None
        if bottom.ndim not in (1, 2) or not bottom.shape[-1]:
            got = f"shape {tuple(bottom.shape)}" if bottom.ndim else "two numbers"
            raise InputError(f"bounds must be (D,) or (rows, D), got {got}; for plain numbers give dims=D too")
        if not (bottom.isfinite().all() and top.isfinite().all()):
            raise InputError("bounds must be finite: a search needs to know where it may look")
        if bool((bottom > top).any()):
            where = int((bottom > top).nonzero()[0, -1])
            a, b = (float(bound[..., where].flatten()[0]) for bound in (bottom, top))
            raise InputError(f"low must not lie above high, but does in dimension {where} ({a:g} > {b:g}); swap them")
        self.low: Tensor = bottom.contiguous()
        self.high: Tensor = top.contiguous()

    @property
    def dims(self) -> int:
        return self.low.shape[-1]

    @property
    def dtype(self) -> torch.dtype:
        return self.low.dtype

    def decode(self, x: Tensor) -> Any:
        """The values that points ``x`` (…, D) encode: in a box, themselves."""
        return x


@dataclass(frozen=True)
class Real:
    """``size`` real numbers from low to high; ``log``: every factor of ten gets the same room (low > 0)."""

    low: float
    high: float
    size: int | None = None
    log: bool = False

    def bounds(self) -> tuple[float, float]:
        return (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)

    def decode(self, x: Tensor) -> Tensor:
        return (x.exp() if self.log else x).clamp(self.low, self.high)


@dataclass(frozen=True)
class Integer:
    """``size`` whole numbers from low to high, both included, each with the same share of the axis."""

    low: int
    high: int
    size: int | None = None

    def bounds(self) -> tuple[float, float]:
        return float(self.low), float(self.high) + 1

    def decode(self, x: Tensor) -> Tensor:
        return x.floor().long().clamp(self.low, self.high)


@dataclass(frozen=True)
class Binary:
    """``size`` yes-or-no values: the upper half of [0, 1] is yes."""

    size: int | None = None

    def bounds(self) -> tuple[float, float]:
        return 0.0, 1.0

    def decode(self, x: Tensor) -> Tensor:
        return x > 0.5


class Space(Box):
    """Named values of mixed kind, searched as one box: ``Space({"rate": Real(1e-4, 1, log=True), "mask": Binary(9)})``.

    ``decode`` turns points (…, D) into a dictionary: (…) where ``size`` is None, (…, size) otherwise; float, int64 or
    bool. The optimisers move in the real box; many points stand for the same integers, and are counted each time.
    """

    def __init__(self, parts: Mapping[str, Real | Integer | Binary], dtype: torch.dtype = torch.float32) -> None:
        if not parts:
            raise InputError("a space needs at least one named value")
        low, high = [], []
        for name, part in parts.items():
            if part.size is not None and part.size < 1:
                raise InputError(f"{name!r} has size {part.size}; give 1 or more, or leave it out for a single value")
            if isinstance(part, Real) and part.log and not part.low > 0:
                raise InputError(f"{name!r} is searched by its logarithm, so low must be > 0, got {part.low:g}")
            if not isinstance(part, Binary) and part.low > part.high:
                raise InputError(f"{name!r}: low must not lie above high ({part.low:g} > {part.high:g}); swap them")
            a, b = part.bounds()
            low += [a] * (part.size or 1)
            high += [b] * (part.size or 1)
        super().__init__(torch.tensor(low, dtype=dtype), torch.tensor(high, dtype=dtype))
        self.parts = dict(parts)

    def decode(self, x: Tensor) -> dict[str, Tensor]:
        values, at = {}, 0
        for name, part in self.parts.items():
            block = x[..., at : at + (part.size or 1)]
            values[name] = part.decode(block[..., 0] if part.size is None else block)
            at += part.size or 1
        return values
