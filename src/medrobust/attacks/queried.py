"""Success against queries: how many queries an attack needs until it succeeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust import stats
from medrobust.attacks.attack import Attack
from medrobust.attacks.engine import run
from medrobust.classifier import Classifier
from medrobust.images import Images
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal


@dataclass(frozen=True)
class Queried:
    """The result of an attack within a budget of queries, for each image."""

    attack: str
    budget: int
    queries_used: Tensor
    """float32 (n,): queries up to the one that succeeded; 0 where the goal was reached before, infinity where never."""
    images: Images
    inconclusive: Tensor
    """bool (n,): never reached, and no answer differed or something was not finite: proves nothing."""
    groups: tuple[object, ...] | None = None

    def success(self, queries: int) -> stats.Estimate:
        """Of the images not reached before the attack, the share reached within so many queries, with its interval."""
        open_ = (self.queries_used > 0).numpy()
        return stats.proportion((self.queries_used <= queries).numpy()[open_], stats.members(self.groups, open_))

    @property
    def median(self) -> stats.Estimate:
        """Median queries of the images not reached before, with its 95 % interval; infinite where most hold."""
        open_ = (self.queries_used > 0).numpy()
        return stats.median(self.queries_used.double().numpy()[open_], stats.members(self.groups, open_))


def queried(
    attack: Attack,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    ball: Ball,
    *,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    groups: Sequence[object] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Queried:
    """Attack every image (n, c, h, w) until it falls or its queries are spent.

    groups: a patient for each image; intervals are widened accordingly.
    """
    done = run(attack, classifier, images, goal, ball, seed=seed, ids=ids, advance=advance)
    queries_used = torch.where(done.reached, done.queries.float(), torch.inf)
    queries_used = torch.where(done.clean, 0.0, queries_used)
    return Queried(
        attack.title,
        attack.steps,
        queries_used,
        done.images,
        done.no_gradient,
        None if groups is None else tuple(groups),
    )
