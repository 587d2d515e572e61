"""Squared Euclidean distances by one matrix product, in float64."""

from __future__ import annotations

from torch import Tensor

COPY = 1e-14
"""A squared distance this small, relative to the rows' own lengths squared, is rounding."""


def squared(rows: Tensor, bank: Tensor, centre: Tensor) -> Tensor:
    """(n, m) squared distances of rows (n, d) from bank (m, d), both float64; differentiable in ``rows``.

    centre: (d,), subtracted from both, so that the product loses no digits to a common offset. Rows nearer than
    float32 can tell apart are copies: 0 exactly, not what rounding leaves.
    """
    rows, bank = rows - centre, bank - centre
    products = rows @ bank.T
    lengths = (rows**2).sum(1, keepdim=True) + (bank**2).sum(1)
    far = lengths - 2 * products
    return far.masked_fill(far < COPY * lengths, 0.0)
