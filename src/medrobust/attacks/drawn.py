"""Attacks on a random network: gradients averaged over draws, success counted on other draws.

Expectation over transformations (Athalye et al. 2018, arXiv:1802.00420), with the same draws at every step: the mean
is then a network like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.attack import Attack
from medrobust.attacks.engine import run
from medrobust.attacks.sweep import Curve
from medrobust.classifier import Classifier
from medrobust.draws import Draws
from medrobust.images import Images, PerImage
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal

FOLLOWED = Draws(16, "followed")
"""Whose mean attacks follow."""
CHOSEN = Draws(32, "chosen", probable=True)
"""By which the strongest of several examples is chosen."""
JUDGED = Draws(32, "judged", probable=True)
"""On which success is counted; the decision of their mean is that of the network."""
BUCKETS = 16
"""Sets of draws on which it is counted, one an image: were they the same for all, what a few draws have by chance would
be in every image, and the interval over images would not tell of it."""
SENTENCE = (
    f"Random network: gradients averaged over {FOLLOWED.count} draws, success counted on {JUDGED.count} fresh draws. "
    "Accuracies are means over these; a decision is that of their mean."
)


def averaged(classifier: Classifier, images: Images) -> Classifier:
    """A random network as the mean over ``JUDGED``; any other, and one whose randomness cannot be seeded, as it is.

    images (n, c, h, w): a few, on which the mean is computed twice.
    """
    inspection = classifier.inspection
    if inspection is None or inspection.repeatable or classifier.black_box:
        return classifier
    made = classifier.changed(draws=JUDGED)
    return made if torch.equal(made.logits(images), made.logits(images)) else classifier


def followed(classifier: Classifier) -> Classifier:
    """What attacks on ``averaged`` follow; any other classifier as it is."""
    return classifier if classifier.draws is None else classifier.changed(draws=FOLLOWED)


def held(judged: Classifier, images: Images, goal: Goal, ids: Sequence[Id]) -> PerImage:
    """float32 (n,): the share of the answers to each image by which the goal is not reached."""
    assert judged.draws is not None
    goal = goal.prepare(judged.head, len(judged.classes), len(images), images.device)
    bucket = torch.tensor([int(seeds.generator(0, "draws", i).integers(BUCKETS)) for i in ids])
    shares = torch.empty(len(images))
    for k in bucket.unique().tolist():
        rows = (bucket == k).nonzero()[:, 0]
        answers = judged.changed(draws=replace(judged.draws, purpose=f"{judged.draws.purpose}/{k}")).answers(
            images[rows]
        )
        part = goal.take(rows)
        shares[rows] = torch.stack([~part.reached(judged.head, logits) for logits in answers]).float().mean(0).cpu()
    return shares


def drawn(
    attack: Attack,
    classifier: Classifier,
    judged: Classifier,
    images: Images,
    goal: Goal,
    ball: type[Ball],
    eps: Sequence[float],
    *,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    groups: Sequence[object] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Curve:
    """The sweep of a random network: at each eps a run of all steps, for images of which any answer still holds.

    classifier: what attacks follow, see ``followed``. judged: see ``averaged``. Of what was found at an eps or below,
    the example at which least of ``CHOSEN`` holds counts there; ``held`` is its share of ``judged``'s draws. min_eps is
    the smallest eps at which the mean of these reaches the goal.
    """
    assert judged.draws is not None
    names = list(range(len(images))) if ids is None else list(ids)
    goal = goal.prepare(judged.head, len(judged.classes), len(images), images.device)
    chooser = judged.changed(draws=CHOSEN)
    best, example = images.clone(), images.clone()
    least, share = (held(c, images, goal, names) for c in (chooser, judged))
    min_eps = torch.where(_reached(judged, images, goal), 0.0, torch.inf)
    gradients, forwards = torch.zeros(2, len(images), dtype=torch.long)
    no_gradient = torch.zeros(len(images), dtype=torch.bool)
    by = torch.full((len(images),), -1)
    shares: list[Tensor] = []
    chosen: list[Tensor] = []
    for size in eps:
        at = (least > 0).nonzero()[:, 0] if size > 0 else torch.empty(0, dtype=torch.long)
        if at.numel():
            aim, whose = goal.take(at), [names[i] for i in at.tolist()]
            done = run(attack, classifier, images[at], aim, ball(size), seed=seed, ids=whose, full=True)
            gradients[at] += done.gradients
            forwards[at] += done.forwards
            no_gradient[at] = done.no_gradient & ~done.reached
            after = held(chooser, done.images, aim, whose)
            won = (after < least[at]).nonzero()[:, 0]
            rows = at[won]
            best[rows], least[rows] = done.images[won], after[won]
            if won.numel():
                share[rows] = held(judged, best[rows], goal.take(rows), [names[i] for i in rows.tolist()])
                fallen = _reached(judged, best[rows], goal.take(rows)) & torch.isinf(min_eps[rows])
                min_eps[rows[fallen]] = size
                example[rows[fallen]] = best[rows[fallen]]
                if done.by is not None:
                    by[rows[fallen]] = done.by[won][fallen]
        shares.append(share.clone())
        chosen.append(least.clone())
    lasting = torch.isinf(min_eps)
    example[lasting] = best[lasting]
    if advance is not None:
        advance(len(images))
    return Curve(
        attack.title,
        tuple(float(e) for e in eps),
        min_eps.float(),
        example,
        gradients,
        forwards,
        no_gradient & lasting,
        None if groups is None else tuple(groups),
        by if bool((by >= 0).any()) else None,
        torch.stack(shares, 1),
        torch.stack(chosen, 1),
    )


def _reached(judged: Classifier, images: Images, goal: Goal) -> Tensor:
    return goal.reached(judged.head, judged.logits(images)).cpu()
