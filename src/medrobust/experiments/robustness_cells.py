"""The pieces of work of an audit. Each is a function of its arguments alone and ends in one cell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from medrobust import seeds
from medrobust.attacks import Attack, run, sweep
from medrobust.attacks.drawn import drawn, held
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.images import BIT_DEPTHS, Images, save_at
from medrobust.judging import judge
from medrobust.models.preprocessing import Display, PadToSquare
from medrobust.naming import image_code, patient_code
from medrobust.store import Result
from medrobust.threat import Ball, Untargeted

Advance = Callable[[int], None]
SHOWN = 256
"""Side in pixels of the pictures of images that keep their own size."""


def clean(classifier: Classifier, part: Dataset, advance: Advance) -> Result:
    """Probabilities and decisions on clean images, and on the same images saved at 8 bits; of a random network also
    the share of right answers."""
    probability, decisions, saved, shares = [], [], [], []
    for images, labels, ids in part.batches(classifier.batch_size((1, *part.largest))):
        logits = classifier.logits(images)
        probability.append(classifier.to_probabilities(logits))
        decisions.append(classifier.head.decide(logits))
        saved.append(classifier.predict(save_at(images, 8, part.span)))
        if classifier.draws is not None:
            shares.append(held(classifier, images, Untargeted(labels), ids))
        advance(len(images))
    return {}, {
        "probability": torch.cat(probability).numpy(),
        "decision": torch.cat(decisions).numpy(),
        "saved": torch.cat(saved).numpy(),
        **({"right": torch.cat(shares).numpy()} if shares else {}),
    }


def swept(
    attack: Attack,
    classifier: Classifier,
    part: Dataset,
    ball: type[Ball],
    eps: tuple[float, ...],
    near: np.ndarray | None,
    seed: int,
    advance: Advance,
    judged: Classifier | None = None,
) -> Result:
    """One attack over the grid, judged: an eps* counts only if ``judge`` confirms the example in float32.

    near: eps* of these images under the attacks before, where this one begins. judged: the classifier without what
    attacks see of it; of a random network ``right`` is the share of its answers that are right at each eps.
    """
    images, labels = part.tensors()
    goal = Untargeted(labels)
    judged = judged or classifier
    given: dict[str, Any] = {"seed": seed, "ids": part.ids, "advance": advance}
    if judged.draws is not None:
        curve = drawn(attack, classifier, judged, images, goal, ball, eps, **given)
    else:
        start = None if near is None else torch.from_numpy(near)
        curve = sweep(attack, classifier, images, goal, ball, eps, near=start, **given)
    outcome = judge(judged, images, curve.images, goal, ball(1.0 if ball.name == "linf" else torch.inf))
    min_eps = curve.min_eps.clone()
    within = (outcome.size <= min_eps + 1e-6) | outcome.reached_before
    confirmed = outcome.reached & within
    min_eps = torch.where(confirmed | torch.isinf(min_eps), min_eps, torch.inf)
    examples = _examples(labels, min_eps)
    facts = {
        "unconfirmed": int((~confirmed & torch.isfinite(curve.min_eps)).sum()),
        "shown": [
            {
                "id": image_code(part, i),
                "label": labels[i].tolist(),
                "before": outcome.before[i].tolist(),
                "after": outcome.after[i].tolist(),
                "confidence_before": float(outcome.confidence_before[i]),
                "confidence_after": float(outcome.confidence_after[i]),
                "eps": float(min_eps[i]) if torch.isfinite(min_eps[i]) else max(eps),
                "size": float(outcome.size[i]),
                "patient": patient_code(part, i),
            }
            for i in examples
        ],
    }
    return facts, {
        "shown.clean": shown_images(images[examples], part).numpy(),
        "shown.attacked": shown_images(curve.images[examples], part).numpy(),
        "min_eps": min_eps.numpy(),
        "before": outcome.before.numpy(),
        "after": outcome.after.numpy(),
        "gradients": curve.gradients.numpy(),
        "forwards": curve.forwards.numpy(),
        "no_gradient": curve.inconclusive.numpy(),
        **({} if curve.by is None else {"by": curve.by.numpy()}),
        **({} if curve.held is None else {"right": curve.held.numpy()}),
        **({} if curve.chosen is None else {"chosen": curve.chosen.numpy()}),
    }


def shown_images(images: Images, part: Dataset) -> Images:
    """For the page: what is shown, images of several sizes on squares of one, so that they lie in one array."""
    images = Display()(images) if part.surround else images
    if part.fit != "none":
        return images
    return F.interpolate(PadToSquare()(images), (SHOWN, SHOWN), mode="area")


def noise(
    classifier: Classifier, part: Dataset, ball: type[Ball], eps: tuple[float, ...], seed: int, advance: Advance
) -> Result:
    """The control: random changes of exactly the same size, and the decision at each eps.

    Linf: every pixel moved by +-eps, the largest change the ball allows (stronger than uniform noise).
    L2: a random direction at full length.
    """
    images, _ = part.tensors()
    draw = seeds.signs if ball.name == "linf" else seeds.normal
    direction = draw(seed, "noise/sign", part.ids, images.shape[1:]) * classifier.attackable.movable(images)
    if ball.name != "linf":
        direction = ball(1.0).at_edge(direction)
    decided = []
    for e in eps:
        noisy = classifier.confined(images, (images + e * direction).clamp(0, 1))
        decided.append(classifier.predict(noisy).numpy())
        advance(len(images))
    return {}, {"decision": np.stack(decided, 1)}


def saving(
    attack: Attack,
    classifier: Classifier,
    part: Dataset,
    ball: Ball,
    seed: int,
    advance: Advance,
    judged: Classifier | None = None,
) -> Result:
    """Full-strength examples at one eps, and what is left of them after saving at 8, 12 and 16 bits."""
    images, labels = part.tensors()
    goal = Untargeted(labels)
    strong = run(attack, classifier, images, goal, ball, seed=seed, ids=part.ids, full=True, advance=advance).images
    arrays = {}
    for bits in BIT_DEPTHS:
        outcome = judge(judged or classifier, images, strong, goal, ball, bits=bits, span=part.span)
        arrays[f"saved{bits}"] = outcome.survives.numpy()
        arrays[f"size{bits}"] = outcome.size_saved.numpy()
    return {}, {**arrays, "reached": outcome.reached.numpy(), "size": outcome.size.numpy()}


def fixed(
    attack: Attack,
    classifier: Classifier,
    part: Dataset,
    ball: Ball,
    seed: int,
    advance: Advance,
    judged: Classifier | None = None,
) -> Result:
    """One attack at one eps from nothing, judged: what the sanity checks compare."""
    images, labels = part.tensors()
    goal = Untargeted(labels)
    judged = judged or classifier
    attacked = attack(classifier, images, goal, ball, seed=seed, ids=part.ids, full=judged.draws is not None)
    outcome = judge(judged, images, attacked, goal, ball)
    advance(len(images))
    return {"legal": bool(outcome.legal.all())}, {
        "reached": outcome.reached.numpy(),
        "before": outcome.reached_before.numpy(),
    }


EXAMPLES = 6


def _examples(labels: torch.Tensor, min_eps: torch.Tensor) -> list[int]:
    """Some images of every class in turn that were right before the attack: those it fooled before those that held."""
    right = min_eps > 0
    ranked: list[tuple[int, object, int]] = []
    turns: dict[object, int] = {}
    for i in sorted(right.nonzero()[:, 0].tolist(), key=lambda i: (not torch.isfinite(min_eps[i]), i)):
        label = labels[i].tolist() if labels.ndim == 1 else tuple(labels[i].tolist())
        turn = turns.get(label, 0)
        turns[label] = turn + 1
        ranked.append((turn, label, i))
    return [i for _, _, i in sorted(ranked)[:EXAMPLES]]
