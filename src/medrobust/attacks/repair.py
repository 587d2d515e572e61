"""Attacked images of whole stored levels: what rounding undoes is brought back by greedy moves of one level.

An attack rounds while it searches (``Classifier.stored``). Where it fails all the same, the pixels with the largest
gradient move by one level, as many as are needed, inside the ball; and a success is followed to smaller sizes likewise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from medrobust.attacks.attacked import Attacked
from medrobust.attacks.moves import WIDE, Moves, Search, bisected
from medrobust.classifier import Classifier
from medrobust.images import Images
from medrobust.threat import Ball, Goal, Linf
from medrobust.threat.balls import TOLERANCE

ROUNDS = 3
"""Gradients that an image may take at one size."""
SHORTER = 0.02
"""Share by which a smallest perturbation is shortened at a time, where that is more than a level."""


def repaired(
    done: Attacked,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    ball: type[Ball],
    sizes: Sequence[float],
    *,
    minimal: bool,
) -> Attacked:
    """``done`` on ``images`` of whole levels, each image tried at the size below the one at which it fell.

    sizes: the grid of eps, ascending. minimal: of an attack that looks for the smallest perturbation; in Linf the size
    below is that of the example less one level.
    """
    levels = classifier.stored_levels
    assert levels is not None
    n = len(images)
    search = Search(classifier, goal.prepare(classifier.head, len(classifier.classes), n, images.device), n)
    done, grid = replace(done, level=done.level.clone()), torch.tensor(sizes)
    one_less = minimal and ball is Linf

    def smaller(rows: Tensor) -> Tensor:
        """The next eps of each row, 0 where there is none."""
        reached, level = done.reached[rows], done.level[rows] - 1
        eps = torch.where((level < 0) | (reached & minimal), 0.0, grid[level.clamp_min(0)])
        if not one_less:
            return eps
        size = ball(0.0).size(done.images[rows] - images[rows]).cpu()
        shorter = ball(0.0).at((size - 1 / levels).minimum(size * (1 - SHORTER)).clamp_min(0)).whole(levels).eps
        assert isinstance(shorter, Tensor)
        return torch.where(reached, shorter.flatten(), eps)

    going = (~done.clean).nonzero()[:, 0]
    while going.numel():
        eps = smaller(going)
        going, eps = going[eps > 0], eps[eps > 0]
        if not going.numel():
            break
        at = ball(0.0).at(eps.to(images))
        pushed, hit = _pushed(search, images[going], done.images[going], at, going, levels)
        going, pushed = going[hit], pushed[hit]
        done.images[going] = pushed
        done.reached[going] = True
        size = ball(0.0).size(pushed - images[going]).cpu()
        done.level[going] = len(sizes) - 1 if minimal else torch.searchsorted(grid, size - TOLERANCE)
    return replace(
        done,
        gradients=done.gradients + search.gradients,
        forwards=done.forwards + search.forwards,
        queries=done.queries + search.gradients + search.forwards,
        no_gradient=done.no_gradient & ~done.reached,
    )


def _pushed(
    search: Search, origin: Images, attacked: Images, ball: Ball, index: Tensor, levels: int
) -> tuple[Images, Tensor]:
    """``attacked`` cut to the ball and moved by greedy steps; bool: it reaches the goal."""
    images = search.classifier.as_stored(ball.move(origin, attacked))
    longer = (~ball.legal(origin, images)).view(WIDE)
    images = torch.where(longer, origin, images)  # an L2 change that rounding lengthens: from the image itself
    reached = torch.zeros(len(images), dtype=torch.bool, device=images.device)
    for _ in range(ROUNDS):
        rows = (~reached).nonzero()[:, 0]
        if not rows.numel():
            break
        here = _at(ball, rows)
        hit, margin, gradient = search.slope(images[rows], index[rows])
        reached[rows] = hit
        step = gradient.sign() / levels
        inside = (images[rows] + step - origin[rows]).abs() <= here.eps + TOLERANCE
        moves = Moves.ranked(images[rows], step, gradient.abs() * inside / levels, levels)
        open_ = (~hit & (moves.count > 0)).nonzero()[:, 0]
        if not open_.numel():
            break
        rows, moves, here, margin = rows[open_], moves.take(open_), _at(here, open_), margin[open_]
        most = _longest(moves, origin[rows], here)
        hit, all_margin = search.ask(moves.first(most), index[rows])
        enough = moves.needed(-margin).minimum(most)
        number = torch.where(hit, most, enough)
        won, lost = hit.nonzero()[:, 0], (~hit).nonzero()[:, 0]
        if won.numel():
            number[won] = search.fewest(moves.take(won), most[won], index[rows[won]])
        if lost.numel():
            fewer = search.ask(moves.take(lost).first(enough[lost]), index[rows[lost]])
            hit[lost] = fewer[0]
            number[lost] = torch.where(fewer[1] > all_margin[lost], enough[lost], most[lost])
        images[rows] = moves.first(number)
        reached[rows] = hit
    return images, reached


def _longest(moves: Moves, origin: Images, ball: Ball) -> Tensor:
    """The largest number of first moves that stays in the ball."""

    def outside(number: Tensor, rows: Tensor) -> Tensor:
        return ~_at(ball, rows).legal(origin[rows], moves.take(rows).first(number))

    return bisected(outside, moves.count + 1) - 1


def _at(ball: Ball, rows: Tensor) -> Ball:
    assert isinstance(ball.eps, Tensor)
    return ball.at(ball.eps.flatten()[rows])
