"""Moves of pixels by one stored level, in an order for each image, and how many of them reach a goal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust.attacks.active_batch import goal_on
from medrobust.attacks.attack import evaluate
from medrobust.classifier import Classifier
from medrobust.images import Images, PerImage, on_grid
from medrobust.threat import Goal, margin

WIDE = (-1, 1, 1, 1)


@dataclass(frozen=True)
class Moves:
    """Changes of n images by at most one level a value, ranked."""

    start: Images
    step: Images
    """One level up or down, 0 where a value is not to move."""
    rank: Tensor
    """int64 (n, c, h, w), or (n, 1, h, w) where the channels of a pixel move together: its place in the order."""
    gain: Tensor
    """Of each move, (n, moves) in the order: by how much a linear network's margin rises; 0 beyond ``count``."""
    count: Tensor
    """int64 (n,): how many moves there are."""
    levels: int

    @classmethod
    def ranked(cls, start: Images, step: Images, gain: Tensor, levels: int) -> Moves:
        """The largest gain first. gain: as ``rank``; 0 or less: no move."""
        flat = gain.flatten(1)
        ordered, order = flat.sort(dim=1, descending=True, stable=True)
        rank = order.argsort(1).view(gain.shape)
        return cls(start, step, rank, ordered.clamp_min(0), (flat > 0).sum(1), levels)

    def first(self, number: Tensor) -> Images:
        """The images after the first ``number`` (n,) moves of each."""
        moved = self.rank < number.view(WIDE)
        return on_grid(torch.where(moved, self.start + self.step, self.start), self.levels)

    def take(self, index: Tensor) -> Moves:
        return Moves(
            self.start[index], self.step[index], self.rank[index], self.gain[index], self.count[index], self.levels
        )

    def needed(self, missing: Tensor) -> Tensor:
        """int64 (n,): moves by which a linear network's margin would rise by ``missing`` (n,); ``count`` if too few."""
        short = self.gain.cumsum(1) < missing[:, None]
        return (short.sum(1) + 1).minimum(self.count)


class Search:
    """Which images reach the goal, and where their margin rises; counts what it costs each.

    Every method takes images that are changes of the images ``index`` (m,); results do not depend on the batch.
    """

    def __init__(self, classifier: Classifier, goal: Goal, n: int) -> None:
        self.classifier, self.goal = classifier, goal
        self.gradients, self.forwards = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=torch.long)

    def ask(self, images: Images, index: Tensor) -> tuple[Tensor, PerImage]:
        """bool (m,): the goal is reached; and by what margin."""
        logits = self.classifier.logits(images)
        self.forwards[index] += 1
        goal, head = self.goal.take(index), self.classifier.head
        return goal.reached(head, logits) & torch.isfinite(logits).all(1), goal.margin(head, logits)

    def slope(self, images: Images, index: Tensor) -> tuple[Tensor, PerImage, Images]:
        """As ``ask``, and the gradient of the margin, 0 where following it would leave [0, 1]."""
        self.gradients[index] += 1
        here, size = self.classifier.device, self.classifier.batch_size(images.shape)
        reached: list[Tensor] = []
        margins: list[Tensor] = []
        gradients: list[Tensor] = []
        for part, rows in zip(images.split(size), index.split(size), strict=True):
            goal = goal_on(self.goal.take(rows), here)
            output = evaluate(self.classifier, part.to(here), goal, margin, gradient=True)
            assert output.gradient is not None
            reached.append(output.reached.to(images.device))
            margins.append(output.margin.to(images.device))
            gradients.append(output.gradient.to(images.device))
        return torch.cat(reached), torch.cat(margins), torch.cat(gradients)

    def fewest(self, moves: Moves, high: Tensor, index: Tensor, low: Tensor | None = None) -> Tensor:
        """int64 (m,), by bisection: so many first moves reach the goal, and one fewer do not.

        ``high`` moves reach it; ``low`` (0 if not given) are taken not to.
        """
        return bisected(lambda k, open_: self.ask(moves.take(open_).first(k), index[open_])[0], high, low)

    def shortest(self, moves: Moves, guess: Tensor, index: Tensor) -> Tensor:
        """As ``fewest``, where it is not known what reaches the goal: ``guess`` moves are doubled until they do.

        0 where none does, and where ``guess`` is 0.
        """
        low, high = torch.zeros_like(guess), guess.minimum(moves.count)
        trying = (high > 0).nonzero()[:, 0]
        reached = torch.zeros_like(guess, dtype=torch.bool)
        while trying.numel():
            hit, _ = self.ask(moves.take(trying).first(high[trying]), index[trying])
            reached[trying] = hit
            trying = trying[~hit & (high[trying] < moves.count[trying])]
            low[trying] = high[trying]
            high[trying] = (2 * high[trying]).minimum(moves.count[trying])
        done = reached.nonzero()[:, 0]
        number = torch.zeros_like(guess)
        number[done] = self.fewest(moves.take(done), high[done], index[done], low[done])
        return number


def bisected(holds: Callable[[Tensor, Tensor], Tensor], high: Tensor, low: Tensor | None = None) -> Tensor:
    """int64 (n,): for each row a number that holds, where it holds for ``high`` and is taken not to hold for ``low``.

    holds(numbers (m,), rows (m,)) -> bool (m,). low: 0 if not given.
    """
    low, high = torch.zeros_like(high) if low is None else low.clone(), high.clone()
    while (open_ := (high - low > 1).nonzero()[:, 0]).numel():
        middle = (low[open_] + high[open_]) // 2
        hit = holds(middle, open_)
        high[open_] = torch.where(hit, middle, high[open_])
        low[open_] = torch.where(hit, low[open_], middle)
    return high
