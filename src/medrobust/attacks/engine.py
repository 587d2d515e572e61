"""Running an attack: on a faster copy of the network where that pays, verified on the network itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from medrobust.attacks.attack import Attack, Composed
from medrobust.attacks.attacked import Attacked
from medrobust.attacks.loop import CleanPass, Loop, Options
from medrobust.attacks.repair import repaired
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, check_images
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal

WORTH = 40
"""Steps an image from which on a faster copy of the network pays for being made."""


def run(
    attack: Attack,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    ball: Ball,
    *,
    grid: Sequence[float] | None = None,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    full: bool = False,
    search: str = "warm",
    near: Tensor | None = None,
    after: Attacked | None = None,
    fast: bool | None = None,
    bfloat16: bool = False,
    advance: Callable[[int], None] | None = None,
    out_of_reach: Tensor | None = None,
    clean: CleanPass | None = None,
) -> Attacked:
    """Attack every image at ``ball.eps``, or carry each through ``grid`` (ascending) to its smallest eps.

    Of a ``classifier.stored(levels)`` all images are of whole stored levels: eps is lowered to such, and what rounding
    undoes is repaired where gradients may be used (``attacks.repair``).

    full: make all steps and return the strongest example (largest margin), whatever succeeded first.
    search, near: in which order a grid is tried; see ``Bracket``. What broke at one eps counts as broken above it
        (the same example is legal there), and a success smaller than its eps counts from its own size upwards.
    after: what another attack did to the same images over the same grid: only smaller eps are tried, and what it found
        stays where nothing smaller is found. Costs are counted from here on.
    fast: search with ``Classifier.fast``; what it finds is verified by the classifier itself. When not given: where
        an image takes ``WORTH`` steps or more (not by the number of images: results must not depend on it).
    bfloat16: search in that type (one eps only); successes are verified and failures tried again in float32.
    advance: called with the number of images that were finished.
    out_of_reach: int64 (n,), ``Attacked.out_of_reach`` of another attack on the same images, grid and ball: attacks
        that end runs by the same rule leave these levels out. clean: shared by attacks on the same images and goal.
    """
    if bfloat16 and grid is not None and len(grid) > 1:
        raise InputError("bfloat16=True wants one eps, not a grid: a level that fails would have to be tried again")
    attack.check_norm(type(ball))
    images = classifier.as_stored(check_images(images))
    if (stored := classifier.stored_levels) is not None:
        ball = ball.whole(stored)
        grid = None if grid is None else [float(type(ball)(e).whole(stored).eps) for e in grid]
    options = Options(grid, seed, ids, full, search, near, after, advance)
    shape = images.shape
    classifier.ready(images)
    if isinstance(attack, Composed):
        return attack.run(classifier, images, goal, ball, fast=fast, bfloat16=bfloat16, **vars(options))
    options = replace(options, out_of_reach=out_of_reach, clean=clean)
    if fast is None:
        fast = bfloat16 or attack.steps * (1 if grid is None else len(grid)) >= WORTH
    searched = classifier.fast(shape, bfloat16=bfloat16) if fast and shape[0] else classifier
    done = Loop(attack, searched, images, goal, ball, options).finish()
    if searched is not classifier:
        done = _verified(done, bfloat16, attack, classifier, images, goal, ball, options)
    sizes = [float(ball.eps)] if grid is None else list(grid)
    if attack.minimal:
        done = _within(done, classifier, images, goal, type(ball)(sizes[-1]), len(sizes))
    if stored is None:
        return done
    if attack.uses_gradient and not classifier.black_box:
        done = repaired(done, classifier, images, goal, type(ball), sizes, minimal=attack.minimal)
    # a last attempt that rounding lengthens beyond an L2 ball
    outside = ~(done.reached.to(images.device) | type(ball)(sizes[-1]).legal(images, done.images))
    return replace(done, images=torch.where(outside.view(-1, 1, 1, 1), images, done.images))


def _within(done: Attacked, classifier: Classifier, images: Images, goal: Goal, ball: Ball, levels: int) -> Attacked:
    """``done`` of an attack that looks for the smallest perturbation: one larger than the ball is cut back to it, and
    is a success only where the network is still fooled."""
    outside = (~ball.legal(images, done.images)).nonzero()[:, 0].cpu()
    if not outside.numel():
        return done
    goal = goal.prepare(classifier.head, len(classifier.classes), images.shape[0], images.device).take(outside)
    cut = classifier.as_stored(ball.move(images[outside], done.images[outside]))
    logits = classifier.logits(cut)
    reached = goal.reached(classifier.head, logits) & torch.isfinite(logits).all(1) & ball.legal(images[outside], cut)
    reached = reached.to(done.reached.device)
    part = done.take(outside)
    level = torch.where(reached, levels - 1, levels).to(part.level)
    return done.put(outside, replace(part, images=cut.to(part.images), reached=reached, level=level))


def _verified(
    done: Attacked,
    failures_too: bool,
    attack: Attack,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    ball: Ball,
    options: Options,
) -> Attacked:
    """``done`` with every success evaluated by the classifier itself; those it does not confirm are attacked again.

    failures_too: so are those that failed, where coarse rounding may have been the reason.
    """
    n = images.shape[0]
    goal = goal.prepare(classifier.head, len(classifier.classes), n, images.device)
    logits = classifier.logits(done.images)
    reached = goal.reached(classifier.head, logits) & torch.isfinite(logits).all(1)
    forwards = done.forwards + 1
    open_ = ~(done.reached & reached) if failures_too else done.reached & ~reached
    again = open_.nonzero()[:, 0]
    if not again.numel():
        return replace(done, forwards=forwards)
    repeated = Loop(attack, classifier, images[again], goal.take(again), ball, options.take(again)).finish()
    # what the copy cost is spent; the queries are those of the attack on the classifier itself
    cost = {"gradients": done.gradients[again] + repeated.gradients, "forwards": forwards[again] + repeated.forwards}
    return replace(done, forwards=forwards).put(again, replace(repeated, **cost))
