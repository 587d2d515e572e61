"""The only grader. Attacks never grade themselves.

In float32, on the pixels as they are and as they come back after saving: an attack that does not survive
8-bit saving says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust import stats
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Labels, PerImage, check_images, save_at
from medrobust.threat import Ball, Goal


@dataclass(frozen=True)
class Outcome:
    """Graded per image (n)."""

    before: Labels
    """Decision on the clean image."""
    after: Labels
    """Decision on the attacked image, float32."""
    after_saving: Labels
    """Decision on the attacked image saved at ``bits``."""
    confidence_before: PerImage
    """Probability of the decision ``before`` on the clean image."""
    confidence_after: PerImage
    """Probability of the decision ``after`` on the attacked image."""
    size: PerImage
    """Size of the perturbation, in the ball's norm."""
    size_saved: PerImage
    """Size of the perturbation after both images were saved."""
    legal: Tensor
    """bool: inside the ball (tolerance 1e-6) and inside [0, 1]."""
    reached_before: Tensor
    """bool: the goal was reached without an attack."""
    reached: Tensor
    """bool: legal, and the goal is reached in float32; of a converted network, by its original too."""
    survives: Tensor
    """bool: legal, and the goal is reached after saving at ``bits``."""
    bits: int
    groups: tuple[object, ...] | None = None

    @property
    def accuracy(self) -> stats.Estimate:
        """Share of images at which the goal is not reached, with its 95 % interval."""
        return stats.proportion((~self.reached).numpy(), self.groups)

    @property
    def accuracy_saved(self) -> stats.Estimate:
        """The same after saving at ``bits``."""
        return stats.proportion((~self.survives).numpy(), self.groups)

    @property
    def success(self) -> stats.Estimate:
        """Share of images reached, among those at which the goal was not reached before."""
        attacked = ~self.reached_before.numpy()
        return stats.proportion(self.reached.numpy()[attacked], stats.members(self.groups, attacked))


@torch.no_grad()
def judge(
    classifier: Classifier,
    images: Images,
    attacked: Images,
    goal: Goal,
    ball: Ball,
    *,
    bits: int = 8,
    span: int = 1,
    groups: Sequence[object] | None = None,
) -> Outcome:
    """Grade ``attacked`` (n, c, h, w) against ``images``; bits, span: the depth of saved images, see ``save_at``.

    groups: a patient for each image; intervals are widened for images of one patient. Raises InputError where
    shapes differ. Attacked pixels that are not finite, or that no file can hold (``Classifier.confined``), are illegal,
    not an error: that is the verdict.
    """
    images = check_images(images)
    if attacked.shape != images.shape:
        raise InputError(f"attacked images have shape {tuple(attacked.shape)}, the clean ones {tuple(images.shape)}")
    attacked = attacked.detach().float().to(images.device)
    legal = ball.legal(images, attacked)
    legal &= (classifier.confined(images, attacked) == attacked).flatten(1).all(1)
    # only what could be stored is shown to the network
    stored = attacked.nan_to_num(0.0, 1.0, 0.0).clamp(0, 1)
    saved = save_at(stored, bits, span)
    head = classifier.head

    def reached(logits: Tensor) -> Tensor:
        # logits that are not finite decide nothing
        return goal.reached(head, logits) & torch.isfinite(logits).all(1)

    def confirmed(pixels: Images, claimed: Tensor) -> Tensor:
        # what a copy in torch decides counts where the delivered network decides it too
        original = classifier.original
        return claimed if original is None or not bool(claimed.any()) else claimed & reached(original.logits(pixels))

    goal = goal.prepare(head, len(classifier.classes), images.shape[0], images.device)
    clean, after, after_saving = (classifier.logits(x) for x in (images, stored, saved))
    return Outcome(
        before=head.decide(clean).cpu(),
        after=head.decide(after).cpu(),
        after_saving=head.decide(after_saving).cpu(),
        confidence_before=_confidence(classifier, clean),
        confidence_after=_confidence(classifier, after),
        size=ball.size(attacked - images).cpu(),
        size_saved=ball.size(saved - save_at(images, bits, span)).cpu(),
        legal=legal.cpu(),
        reached_before=reached(clean).cpu(),
        reached=confirmed(stored, reached(after) & legal).cpu(),
        survives=confirmed(saved, reached(after_saving) & legal).cpu(),
        bits=bits,
        groups=None if groups is None else tuple(groups),
    )


def _confidence(classifier: Classifier, logits: Tensor) -> PerImage:
    probability = classifier.to_probabilities(logits)
    decision = classifier.head.decide(logits)
    if decision.ndim > 1:  # findings: the least certain of them
        return torch.where(decision == 1, probability, 1 - probability).amin(1).cpu()
    return probability.gather(1, decision[:, None])[:, 0].cpu()
