"""Where on a grid of epsilons each image breaks: what has failed, what has succeeded, and what to try next."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.errors import InputError

SEARCHES = ("warm", "shrink", "bisect", "linear")


class Bracket:
    """For each of n images, the largest level known to fail (-1: none) and the smallest known to succeed.

    search: how the next level is chosen.
        "linear": upwards from the smallest.
        "bisect": the middle of what is open.
        "shrink": after a success the engine follows the perturbation found towards the image, which costs forward
            passes only; then just the level below is left to be tried. Before any success, as "bisect".
        "warm": as "shrink"; and a run below a success begins at the example found, cut to that eps, instead of from
        nothing (the engine's part: here the two are one).
    near: int64 (n,), a level to try first (where a related attack succeeded); it changes the order, not the rule.
    """

    def __init__(self, n: int, levels: int, search: str, near: Tensor | None = None) -> None:
        if search not in SEARCHES:
            raise InputError(f"search must be one of {', '.join(SEARCHES)}, got {search!r}")
        self.search, self.levels = search, levels
        self.low = [-1] * n
        self.high = [levels] * n
        self.again: list[list[int] | None] = [None] * n
        """Levels still to be tried after the largest has failed; None before that."""
        self.near: list[int] | None = None
        if near is not None:
            self.hint(near)

    @property
    def hinted(self) -> bool:
        return self.near is not None

    def hint(self, near: Tensor) -> None:
        """int64 (n,): the level to try first for each image; beyond the grid counts as its end."""
        self.near = near.clamp(0, self.levels - 1).tolist()

    def next(self, i: int) -> int:
        """The level to attack image i at; only where ``open``."""
        low, high = self.low[i], self.high[i]
        again = self.again[i]
        if again and high == self.levels:
            return again.pop(0)
        if self.search == "linear":
            return low + 1
        if self.search == "shrink" and high < self.levels:
            return high - 1
        if self.near is not None:
            # above a hint that failed: four levels further, then the largest
            start = self.near[i]
            return min(high - 1, max(low + 1, start if low < start else low + 4 if low == start else high - 1))
        return (low + high) // 2

    def open(self, i: int) -> bool:
        """Whether a level between the two is still undecided."""
        return self.high[i] - self.low[i] > 1

    def failed(self, i: int, level: int) -> None:
        never = self.search == "shrink" and self.high[i] == self.levels
        if never and level == self.levels - 1 and self.again[i] is None:
            self.again[i] = [k for k in (self.levels // 2, self.levels // 4) if self.low[i] < k < level]
        if never and self.again[i] is not None:
            if not self.again[i]:
                self.low[i] = self.levels - 1
            return
        self.low[i] = max(self.low[i], level)

    def succeeded(self, i: int, level: int) -> None:
        self.high[i] = min(self.high[i], level)

    def smallest(self) -> Tensor:
        """int64 (n,): the smallest level that succeeded; the number of levels where none did."""
        return torch.tensor(self.high, dtype=torch.long)
