"""FGSM over a whole grid: its direction does not depend on eps, so one gradient serves every epsilon.

A single step is not monotone in eps: what it fools at 0.3/255 it may miss at 2/255. So every level is looked at, from
the smallest up, with forward passes alone; the examples are the same to the bit as those of the attack itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from medrobust.attacks.attack import Attack, evaluate
from medrobust.attacks.attacked import Attacked
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, check_images
from medrobust.threat import Ball, Goal


def along_gradient(
    attack: Attack,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    ball: type[Ball],
    grid: Sequence[float],
    advance: Callable[[int], None] | None = None,
) -> Attacked:
    """The smallest eps of ``grid`` (ascending) at which one step of full length reaches the goal, per image."""
    levels = [float(ball(e).eps) for e in grid]
    if not levels or sorted(set(levels)) != levels:
        raise InputError(f"eps must be a non-empty ascending grid without repeats, got {levels}")
    images = classifier.as_stored(check_images(images))
    goal = goal.prepare(classifier.head, len(classifier.classes), images.shape[0], images.device)
    parts = [
        _part(attack, classifier, images[chunk], goal.take(chunk), ball, levels, advance)
        for chunk in torch.arange(images.shape[0]).split(classifier.batch_size(images.shape))
    ]
    fields = ("images", "reached", "level", "gradients", "forwards", "queries", "clean", "no_gradient")
    return Attacked(*(torch.cat([getattr(p, f) for p in parts]) for f in fields))


def _part(
    attack: Attack,
    classifier: Classifier,
    images: Images,
    goal: Goal,
    ball: type[Ball],
    levels: list[float],
    advance: Callable[[int], None] | None,
) -> Attacked:
    n = images.shape[0]
    here = classifier.device
    assert goal.labels is not None
    aim = type(goal)(goal.labels.to(here))  # type: ignore[call-arg]
    with classifier.borrowed():
        output = evaluate(classifier, images.to(here), aim, attack.loss, gradient=True)
    assert output.gradient is not None
    clean = output.reached.to(images.device)
    direction = ball(0.0).ascent(output.gradient).to(images.device)
    level = torch.where(clean, 0, len(levels))
    forwards = torch.zeros(n, dtype=torch.long)
    result, no_gradient = images.clone(), output.no_gradient.to(images.device)
    for k, eps in enumerate(levels):
        left = (level == len(levels)).nonzero()[:, 0]
        if not left.numel():
            break
        origin = images[left]
        stepped = ball(eps).move(origin, origin + eps * direction[left])
        stepped = classifier.as_stored(classifier.confined(origin, stepped))
        logits = classifier.logits(stepped)
        finite = torch.isfinite(logits).all(1)
        hit = goal.take(left).reached(classifier.head, logits) & finite & ball(eps).legal(origin, stepped)
        no_gradient[left] |= ~finite
        forwards[left] += 1
        result[left] = stepped
        level[left[hit]] = k
    if advance is not None:
        advance(n)
    reached = level < len(levels)
    once = torch.ones(n, dtype=torch.long)
    return Attacked(result, reached | clean, level, once, forwards, once + forwards, clean, no_gradient & ~reached)
