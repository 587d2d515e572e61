"""Transfer: adversarial examples made on a surrogate and replayed on another classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from medrobust.attacks.attack import Attack, Composed
from medrobust.attacks.attacked import Attacked
from medrobust.attacks.engine import run
from medrobust.attacks.transferable import TransferableFGSM
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Logits, check_images
from medrobust.threat import Ball, Goal


class MeanLogits(nn.Module):
    """The mean of the canonical logits of several classifiers, in the order of the first one's classes.

    An ensemble in logits (Dong et al. 2018, arXiv:1710.06081, section 3.4).
    """

    def __init__(self, classifiers: Sequence[Classifier]) -> None:
        super().__init__()
        self.classifiers, self.nets = tuple(classifiers), nn.ModuleList(c.net for c in classifiers)
        self.orders = tuple(tuple(map(c.classes.index, classifiers[0].classes)) for c in classifiers)

    def forward(self, images: Images) -> Logits:
        every = [c(images)[:, list(order)] for c, order in zip(self.classifiers, self.orders, strict=True)]
        return torch.stack(every).mean(0)


def ensemble(classifiers: Sequence[Classifier]) -> Classifier:
    """One classifier of the mean logits of several; InputError where they do not tell the same classes apart."""
    first = classifiers[0]
    if len(classifiers) == 1:
        return first
    for other in classifiers[1:]:
        if set(other.classes) != set(first.classes) or other.head.multilabel != first.head.multilabel:
            raise InputError(
                f"an ensemble needs networks of the same classes, got {', '.join(first.classes)} and "
                f"{', '.join(other.classes)}"
            )
    head = "multilabel" if first.head.multilabel else "softmax"
    made = Classifier(MeanLogits(classifiers), first.classes, head=head, outputs="logits")
    return made.changed(attackable=first.attackable)


class Transfer(Composed):
    """The black-box variant of Ma et al. 2020: the same attack, made on an independently trained surrogate.

    The example is the strongest that the attack finds on the surrogate with all its steps, and is replayed as it is:
    one query an image. In a sweep one is made and shown for every eps, for an example of a large eps need not be as
    good as one of a small.

    surrogate: another classifier of the same classes; of several the mean logits are attacked (``ensemble``).
    attack: what is run on it; ``TransferableFGSM`` when not given.
    """

    title = "Transfer"
    source = "Ma et al. 2020, arXiv:1907.10456 (black-box variant); Papernot et al. 2016, arXiv:1605.07277"
    uses_gradient = False

    def __init__(self, surrogate: Classifier | Sequence[Classifier], attack: Attack | None = None) -> None:
        members = (surrogate,) if isinstance(surrogate, Classifier) else tuple(surrogate)
        if not members:
            raise InputError("transfer needs at least one surrogate, got none")
        self.members, self.surrogate = members, ensemble(members)
        self.attack = TransferableFGSM() if attack is None else attack
        self.steps = 1

    @property
    def settings(self) -> dict[str, object]:
        return {"attack": repr(self.attack), "surrogate": self.surrogate.digest()[:12]}

    def examples(self, images: Images, goal: Goal, ball: Ball, *, seed: int = 0, ids: Any = None) -> Images:
        """Examples made on the surrogate alone, inside the ball; the classifier under attack is not queried.

        goal: in the order of the surrogate's classes.
        """
        if self.attack.minimal:
            return self.attack(self.surrogate, images, goal, ball, seed=seed, ids=ids)
        return run(self.attack, self.surrogate, images, goal, ball, seed=seed, ids=ids, full=True).images

    def run(self, classifier: Classifier, images: Images, goal: Goal, ball: Ball, **options: Any) -> Attacked:
        """See ``attacks.run``; of its options seed, ids, grid and advance matter here."""
        if set(classifier.classes) != set(self.surrogate.classes):
            raise InputError(
                f"the surrogate tells {', '.join(self.surrogate.classes)} apart, the classifier "
                f"{', '.join(classifier.classes)}; transfer needs the same class names"
            )
        images = check_images(images)
        n, stored = len(images), classifier.stored_levels
        goal = goal.prepare(classifier.head, len(classifier.classes), n, images.device)
        grid, seed, ids = options.get("grid"), options.get("seed", 0), options.get("ids")
        levels = [float(ball.eps)] if grid is None else [float(e) for e in grid]
        if not levels or sorted(set(levels)) != levels:
            raise InputError(f"eps must be a non-empty ascending grid without repeats, got {levels}")
        low, high, fixed = classifier.attackable
        alike = ensemble([member.seeing(fixed, (low, high)) for member in self.members])
        maker = Transfer(alike if stored is None else alike.stored(stored), self.attack)
        done = self._before(classifier, images, goal, len(levels))
        for k, eps in enumerate(levels):
            left = (done.level == len(levels)).nonzero()[:, 0]
            if not left.numel():
                break
            left_ids = None if ids is None else [ids[i] for i in left.tolist()]
            names = left.tolist() if left_ids is None else left_ids
            surrogate_goal = goal.take(left).in_order_of(classifier.classes, self.surrogate.classes)
            within = type(ball)(eps)
            examples = maker.examples(images[left], surrogate_goal, within, seed=seed, ids=names)
            logits = classifier.logits(examples)
            finite = torch.isfinite(logits).all(1)
            hit = goal.take(left).reached(classifier.head, logits) & finite & within.legal(images[left], examples)
            attacked = done.take(left)
            attacked = replace(
                attacked,
                images=examples,
                reached=hit,
                level=torch.where(hit, k, attacked.level),
                forwards=attacked.forwards + 1,
                queries=attacked.queries + 1,
                no_gradient=attacked.no_gradient | ~finite,
            )
            done = done.put(left, attacked)
        if options.get("advance") is not None:
            options["advance"](n)
        return replace(done, no_gradient=done.no_gradient & ~done.reached)

    @staticmethod
    def _before(classifier: Classifier, images: Images, goal: Goal, levels: int) -> Attacked:
        logits = classifier.logits(images)
        finite = torch.isfinite(logits).all(1)
        clean = goal.reached(classifier.head, logits) & finite
        zero = torch.zeros(len(images), dtype=torch.long)
        return Attacked(images.clone(), clean, torch.where(clean, 0, levels), zero, zero + 1, zero, clean, ~finite)
