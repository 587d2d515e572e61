"""The result of an attack for each image, before it is judged."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from medrobust.images import Images


@dataclass(frozen=True)
class Attacked:
    """The result of an attack for n images. They are graded by ``judge``."""

    images: Images
    reached: Tensor
    """bool: the attack saw its goal reached."""
    level: Tensor
    """int64: index of the smallest eps of the grid at which it succeeded; the grid's length where it did not."""
    gradients: Tensor
    """int64: gradient evaluations spent."""
    forwards: Tensor
    """int64: forward passes spent without a gradient."""
    queries: Tensor
    """int64: images queried until the attack succeeded, or in all; an identical one counts again. The evaluation of
    the clean image and the verification are not counted."""
    clean: Tensor
    """bool: the goal was reached before any attack."""
    no_gradient: Tensor
    """bool: never reached, and a gradient was zero, no query changed the scores, or the logits were not finite: this
    proves nothing."""
    by: Tensor | None = None
    """int64: which member of an ensemble broke the image, -1 where none; None where there are no members."""
    out_of_reach: Tensor | None = None
    """int64: largest level at which, by a gradient there, no point of the ball reaches the goal to first order; or -1.
    None where the attack cannot tell."""

    def take(self, index: Tensor) -> Attacked:
        """The result for those images."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v[index] for k, v in values.items() if v is not None})

    def put(self, index: Tensor, other: Attacked) -> Attacked:
        """This, with what ``other`` says of those images."""
        pairs: dict[str, Any] = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return replace(self, **{k: a.index_copy(0, index, b) for k, (a, b) in pairs.items() if a is not None})
