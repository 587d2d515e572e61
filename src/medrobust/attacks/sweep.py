"""Accuracy against epsilon, and each image's smallest epsilon, in one pass over the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medrobust import stats
from medrobust.attacks.attack import Attack
from medrobust.attacks.engine import run
from medrobust.attacks.iterated import FGSM
from medrobust.attacks.line import along_gradient
from medrobust.attacks.loop import CleanPass
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal


@dataclass(frozen=True)
class Curve:
    """The result of a sweep. eps as fractions of the pixel range, ascending."""

    attack: str
    eps: tuple[float, ...]
    min_eps: Tensor
    """float32 (n,): smallest eps of the grid at which the goal was reached (minimal attacks, and all attacks on stored
    images: the exact size, in Linf of whole levels);
    0 where it was reached before any attack, infinity where never."""
    images: Images
    """For each image the example at min_eps, or the last attempt."""
    gradients: Tensor
    """int64 (n,): gradient evaluations spent."""
    forwards: Tensor
    """int64 (n,): forward passes spent without a gradient."""
    inconclusive: Tensor
    """bool (n,): never reached, and the gradient vanished or the logits were not finite: proves nothing."""
    groups: tuple[object, ...] | None = None
    by: Tensor | None = None
    """int64 (n,): which member of an ensemble found the example, -1 where none; None where there are no members."""
    held: Tensor | None = None
    """Of a random network float32 (n, eps): the share of its answers that the goal is not reached by; see ``drawn``."""
    chosen: Tensor | None = None
    """The same of the answers by which examples were chosen."""
    out_of_reach: Tensor | None = None
    """int64 (n,): see ``Attacked.out_of_reach``."""

    @property
    def accuracy(self) -> tuple[stats.Estimate, ...]:
        """At each eps, the share of images at which the goal is not reached (for an untargeted goal: the accuracy),
        with its 95 % interval. Images in ``inconclusive`` count as not reached: read the two together. Of a random
        network the mean share of its answers, with the interval of so many images (Wilson's, too wide if anything)."""
        if self.held is not None:
            return tuple(stats.proportion(share.numpy(), self.groups) for share in self.held.T)
        return tuple(stats.proportion((self.min_eps > e).numpy(), self.groups) for e in self._edges())

    @property
    def success(self) -> tuple[stats.Estimate, ...]:
        """At each eps, the share of the images not reached before the attack that are reached by it."""
        open_ = (self.min_eps > 0).numpy()
        return tuple(
            stats.proportion((self.min_eps <= e).numpy()[open_], stats.members(self.groups, open_))
            for e in self._edges()
        )

    @property
    def median(self) -> stats.Estimate:
        """Median min_eps of the images not reached before the attack, with its 95 % interval; may be infinite."""
        open_ = (self.min_eps > 0).numpy()
        return stats.median(self.min_eps.double().numpy()[open_], stats.members(self.groups, open_))

    def _edges(self) -> list[float]:
        # min_eps is float32: compare at its precision
        return [float(torch.tensor(e)) for e in self.eps]


def sweep(
    attack: Attack,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    ball: type[Ball],
    eps: Sequence[float],
    *,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    groups: Sequence[object] | None = None,
    search: str = "warm",
    near: Tensor | None = None,
    advance: Callable[[int], None] | None = None,
    out_of_reach: Tensor | None = None,
    clean: CleanPass | None = None,
) -> Curve:
    """Carry each image (n, c, h, w) through the grid ``eps`` to the smallest at which the attack succeeds.

    ball: Linf or L2, the class. groups: a patient for each image; intervals are widened accordingly.
    search: in which order the grid is tried, see ``Bracket``. near: min_eps (n,) of a related attack, where to begin:
        it changes the order, not what counts. advance: called with the number of images finished.
    out_of_reach, clean: what other attacks learnt about the same images, goal and grid; see ``sweep_all``.
    """
    if not len(eps):
        raise InputError("eps must be a non-empty ascending grid, got none")
    images = classifier.as_stored(images)
    grid = [math.inf] if attack.minimal else list(eps)
    if (stored := classifier.stored_levels) is not None and not attack.minimal:
        grid = sorted({float(ball(e).whole(stored).eps) for e in grid} - {0.0}) or [0.0]
    if isinstance(attack, FGSM):
        done = along_gradient(attack, classifier, images, goal, ball, grid, advance)
    else:
        start = _start(near, grid) if not attack.minimal else None
        cold = search == "shrink" or (search == "warm" and not attack.can_warm_start)
        if near is None and not attack.minimal and cold:
            # from the largest eps a few large steps overshoot, and the way back costs forward passes only
            start = torch.full((images.shape[0],), len(grid) - 1)
        done = run(
            attack,
            classifier,
            images,
            goal,
            ball(grid[-1]),
            grid=grid,
            seed=seed,
            ids=ids,
            search=search,
            near=start,
            advance=advance,
            out_of_reach=out_of_reach,
            clean=clean,
        )
    if attack.minimal or stored is not None:
        for e in eps:
            ball(e)  # the same check of the grid as for every other attack
        size = ball(0.0).size(done.images - images.float())
        if stored is not None:
            whole = ball(0.0).at(size).whole(stored).eps
            assert isinstance(whole, Tensor)
            size = whole.flatten()
        min_eps = torch.where(done.reached, size, math.inf)
    else:
        min_eps = torch.cat([torch.tensor(grid), torch.tensor([math.inf])])[done.level]
        min_eps = torch.where(done.reached, min_eps, math.inf)
    min_eps = torch.where(done.clean, 0.0, min_eps)
    return Curve(
        attack.title,
        tuple(float(e) for e in eps),
        min_eps.float(),
        done.images,
        done.gradients,
        done.forwards,
        done.no_gradient,
        None if groups is None else tuple(groups),
        done.by,
        out_of_reach=done.out_of_reach,
    )


def sweep_all(
    attacks: Sequence[Attack],
    classifier: Classifier,
    images: Images,
    goal: Goal,
    ball: type[Ball],
    eps: Sequence[float],
    **given: Any,
) -> tuple[Curve, ...]:
    """``sweep`` of several attacks, in this order. The smallest of their ``min_eps`` is the worst case of an image.

    Every success is the attack's own. Shared are the gradient at the clean images, where an earlier attack succeeded
    (tried first), and levels that its gradients put out of reach to first order, which are then not tried.
    given: ``seed``, ``ids`` and ``groups`` of ``sweep``.
    """
    clean, curves = CleanPass(), list[Curve]()
    near: Tensor | None = None
    out_of_reach: Tensor | None = None
    for attack in attacks:
        curve = sweep(
            attack, classifier, images, goal, ball, eps, near=near, out_of_reach=out_of_reach, clean=clean, **given
        )
        curves.append(curve)
        if not isinstance(attack, FGSM) and not attack.minimal:
            near = curve.min_eps if near is None else near.minimum(curve.min_eps)
        if curve.out_of_reach is not None:
            known = curve.out_of_reach
            out_of_reach = known if out_of_reach is None else known.maximum(out_of_reach)
    return tuple(curves)


def _start(near: Tensor | None, grid: Sequence[float]) -> Tensor | None:
    """The level of each min_eps; the largest where it is infinite (the engine clamps)."""
    return None if near is None else torch.searchsorted(torch.tensor(grid), near.double().float())
