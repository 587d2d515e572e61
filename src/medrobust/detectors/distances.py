"""Squared Euclidean distances by one matrix product, in float64."""

from __future__ import annotations

import torch
from torch import Tensor

COPY = 1e-14
"""A squared distance this small, relative to the rows' own lengths squared, is rounding."""


def squared(rows: Tensor, bank: Tensor, centre: Tensor) -> Tensor:
    """(n, m) squared distances of rows (n, d) from bank (m, d), both float64; differentiable in ``rows``.

    centre: (d,), subtracted from both, so that the product loses no digits to a common offset. Rows nearer than
    float32 can tell apart are copies: 0 exactly, not what rounding leaves.
    """
    bank = bank - centre
    return squared_to(rows - centre, bank, (bank**2).sum(1))


def squared_to(rows: Tensor, bank: Tensor, lengths: Tensor) -> Tensor:
    """``squared`` of rows and a bank that both had a centre taken off. lengths: (m,), the bank's own, squared."""
    lengths = (rows**2).sum(1, keepdim=True) + lengths
    far = torch.addmm(lengths, rows, bank.T, alpha=-2)
    return far.masked_fill(far < COPY * lengths, 0.0)
