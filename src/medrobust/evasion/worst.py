"""Worst case over all evasions, per image; and the smallest eps of a short list at which an image gets past."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from medrobust import stats
from medrobust.classifier import Classifier
from medrobust.detectors import Detector, Features
from medrobust.errors import InputError
from medrobust.evasion.evasion import Evasion
from medrobust.evasion.loop import Evaded, run
from medrobust.images import Images, Lazy
from medrobust.seeds import Id
from medrobust.stats import Estimate
from medrobust.threat import Ball, Goal


@dataclass(frozen=True)
class Strongest(Evaded):
    """The best of several evasions for each image; ``steps``: of all that were tried on it."""

    by: Tensor
    """int64: position of the evasion that found it among those given; -1 where the classifier was never fooled."""


@dataclass(frozen=True)
class Needed:
    """The smallest eps at which each image (n) fooled the classifier and was not past the threshold."""

    eps: np.ndarray
    """float64 (n,): inf where none of the list sufficed."""
    images: Images
    """The example at that eps; the clean image where there is none."""
    grid: tuple[float, ...]

    def share(self, eps: float, groups: Sequence[object] | None = None) -> Estimate:
        """Of the images, the share that an eps of at most so much suffices for."""
        return stats.proportion(self.eps <= eps, groups)

    @property
    def median(self) -> Estimate:
        """Half of the images need no more."""
        return stats.median(self.eps)


def strongest(
    classifier: Classifier,
    detector: Detector,
    images: Images,
    goal: Goal,
    ball: Ball,
    threshold: float,
    *,
    evasions: Mapping[str, Callable[[], Evasion]] | None = None,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    reference: Images | Lazy | Mapping[str, Tensor] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Strongest:
    """Every evasion in turn (default: ``EVASIONS``) on the images that none before got past ``threshold``.

    Kept for each image: of the examples that fool the classifier the one the real detector scores lowest. Evasions
    that need reference images are left out where there are none. advance: told how many images each is done with.
    """
    chosen = [make() for make in _table(evasions).values()]
    able = [(k, e) for k, e in enumerate(chosen) if reference is not None or not e.needs_reference]
    if not able:
        raise InputError("every evasion asked for learns from clean images: give reference=")
    if reference is not None and not isinstance(reference, Mapping):
        reference = Features(classifier, detector.layers_)(reference)
    n = len(images)
    names = list(range(n)) if ids is None else list(ids)
    goal = goal.prepare(classifier.head, len(classifier.classes), n, images.device)
    left = torch.arange(n)
    result, by = images.clone(), torch.full((n,), -1)
    fooled, no_gradient = torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
    score, steps = torch.full((n,), torch.inf, dtype=torch.float64), torch.zeros(n, dtype=torch.long)
    for k, evasion in able:
        if not len(left):
            break
        evaded = run(
            evasion,
            classifier,
            detector,
            images[left],
            goal.take(left.to(images.device)),
            ball,
            threshold,
            seed=seed,
            ids=[names[i] for i in left.tolist()],
            reference=reference,
            advance=advance,
        )
        better = evaded.fooled & (~fooled[left] | (evaded.score < score[left]))
        improved = left[better]
        result[improved], score[improved] = evaded.images[better], evaded.score[better]
        fooled[improved], by[improved] = True, k
        first = left[(by[left] < 0) & (steps[left] == 0)]  # a last attempt is shown where nothing better comes
        result[first] = evaded.images[torch.isin(left, first)]
        steps[left] += evaded.steps
        no_gradient[left] &= evaded.no_gradient
        left = left[~(fooled[left] & (score[left] <= threshold))]
    return Strongest(result, fooled, score, steps, no_gradient, by)


def smallest(
    classifier: Classifier,
    detector: Detector,
    images: Images,
    goal: Goal,
    balls: Sequence[Ball],
    threshold: float,
    *,
    evasions: Mapping[str, Callable[[], Evasion]] | None = None,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    reference: Images | Lazy | Mapping[str, Tensor] | None = None,
) -> Needed:
    """``strongest`` at each of ``balls`` (eps ascending) on the images that none before got past ``threshold``.

    An example found at one eps is legal at every larger one: more room never does worse.
    """
    grid = tuple(float(b.eps) for b in balls)
    if not grid or any(b <= a for a, b in pairwise(grid)):
        raise InputError(f"eps must be ascending, got {', '.join(f'{e * 255:g}/255' for e in grid) or 'none'}")
    n = len(images)
    names = list(range(n)) if ids is None else list(ids)
    goal = goal.prepare(classifier.head, len(classifier.classes), n, images.device)
    if reference is not None and not isinstance(reference, Mapping):
        reference = Features(classifier, detector.layers_)(reference)
    needed, result, left = np.full(n, math.inf), images.clone(), torch.arange(n)
    for ball, eps in zip(balls, grid, strict=True):
        if not len(left):
            break
        evaded = strongest(
            classifier,
            detector,
            images[left],
            goal.take(left.to(images.device)),
            ball,
            threshold,
            evasions=evasions,
            seed=seed,
            ids=[names[i] for i in left.tolist()],
            reference=reference,
        )
        past = evaded.fooled & (evaded.score <= threshold)
        needed[left[past].numpy()], result[left[past]] = eps, evaded.images[past]
        left = left[~past]
    return Needed(needed, result, grid)


def _table(evasions: Mapping[str, Callable[[], Evasion]] | None) -> Mapping[str, Callable[[], Evasion]]:
    from medrobust.evasion import EVASIONS

    return EVASIONS if evasions is None else evasions
