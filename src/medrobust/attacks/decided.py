"""Distance against queries: how small a perturbation a decision-based attack has found after so many queries."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust import stats
from medrobust.attacks.decision import DecisionBased
from medrobust.attacks.engine import run
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal


@dataclass(frozen=True)
class Decided:
    """The result of a decision-based attack, for each image."""

    counts: tuple[int, ...]
    sizes: Tensor
    """float32 (n, counts): the smallest perturbation within so many queries; 0 where the goal was reached before,
    infinity where it was not reached."""
    images: Images
    inconclusive: Tensor
    """bool (n,): no start was found."""
    groups: tuple[object, ...] | None = None

    def median(self, queries: int) -> stats.Estimate:
        """Median perturbation within so many queries, of the images not reached before, with its 95 % interval."""
        sizes, groups = self._of(queries)
        return stats.median(sizes.double().numpy(), groups)

    def success(self, queries: int, eps: float) -> stats.Estimate:
        """Of the images not reached before, the share reached by at most ``eps`` within so many queries."""
        sizes, groups = self._of(queries)
        return stats.proportion((sizes <= eps).numpy(), groups)

    def _of(self, queries: int) -> tuple[Tensor, stats.Groups]:
        sizes = self.sizes[:, self.counts.index(queries)]
        open_ = (sizes > 0).numpy()
        return sizes[open_], stats.members(self.groups, open_)


def decided(
    attack: DecisionBased,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    norm: type[Ball],
    counts: Sequence[int],
    *,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    groups: Sequence[object] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Decided:
    """Attack every image (n, c, h, w) once, and report its smallest perturbation after each number of queries.

    counts: ascending; InputError where one is larger than the attack's budget. groups: a patient for each image.
    """
    if any(count > attack.queries for count in counts):
        raise InputError(f"counts {list(counts)} exceed the budget of {attack.queries} queries an image")
    names = list(range(len(images))) if ids is None else list(ids)
    row = {name: i for i, name in enumerate(names)}
    sizes = torch.full((len(names), len(counts)), torch.inf)

    def watch(name: Id, queries: int, size: float) -> None:
        for k, count in enumerate(counts):
            if queries <= count:
                sizes[row[name], k] = size

    ball = norm(1.0 if norm.name == "linf" else torch.inf)
    done = run(attack.watched(watch), classifier, images, goal, ball, seed=seed, ids=names, advance=advance)
    sizes[done.clean] = 0.0
    inconclusive = done.no_gradient
    return Decided(tuple(counts), sizes, done.images, inconclusive, None if groups is None else tuple(groups))
