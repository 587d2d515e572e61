"""Rows in the one number that an exported network takes."""

from __future__ import annotations

import torch
from torch import Tensor


def in_rows(images: Tensor, rows: int | None) -> list[Tensor]:
    """Batches of exactly ``rows`` images, the last one filled up with its last image; all at once where it is None."""
    if rows is None:
        return [images]
    parts = list(images.split(rows))
    missing = rows - len(parts[-1])
    if missing:
        parts[-1] = torch.cat([parts[-1], parts[-1][-1:].expand(missing, *images.shape[1:])])
    return parts
