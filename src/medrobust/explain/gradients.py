"""Gradients of the loss with respect to the pixels, of any size: a direction, and the logarithm of its length.

A network that is sure to 1 - 1e-60 has a cross-entropy gradient of 1e-60 times something, which float32 rounds to 0:
its saliency would be black and its slope 0. So the direction is kept at full precision and the factor as a logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from medrobust.attacks.attack import slope
from medrobust.classifier import Classifier
from medrobust.images import Images, Labels, Logits, PerImage, check_images
from medrobust.threat import Untargeted, cross_entropy, margin


@dataclass(frozen=True)
class Gradients:
    """Per image: the gradient is ``direction * exp(log_scale)``."""

    direction: Images
    """float32 (n, c, h, w), of moderate size."""
    log_scale: PerImage
    """float64 (n,); -inf where there is no gradient."""
    loss: PerImage
    """float64 (n,): cross-entropy in nats, or the margin in logits (negative: that far from another decision)."""
    logits: Logits

    @property
    def no_gradient(self) -> Tensor:
        """bool (n,): zero everywhere, or something is not finite. Nothing can be said of such an image."""
        top = self.direction.flatten(1).abs().amax(1)
        finite = torch.isfinite(self.logits).all(1) & torch.isfinite(self.direction).flatten(1).all(1)
        return ~((top > 0) & finite & torch.isfinite(self.log_scale))

    @property
    def sign(self) -> Images:
        """-1, 0 and 1, float32 (n, c, h, w): the first step of FGSM."""
        return self.direction.nan_to_num(0.0, 0.0, 0.0).sign()

    def log_norm(self, p: float) -> PerImage:
        """float64 (n,): natural logarithm of the L_p norm of the gradient. Its dual is the norm of the change: the
        L1 norm says how fast the loss grows per unit of Linf, the L2 norm per unit of L2."""
        # one image at a time: in which order it is added up must not depend on how many there are
        lengths = torch.stack([image.double().norm(p) for image in self.direction.flatten(1)])
        return lengths.log() + self.log_scale

    def norm(self, p: float) -> PerImage:
        """float64 (n,): the L_p norm itself, which float64 holds down to 1e-308."""
        return self.log_norm(p).exp()


def loss_gradient(classifier: Classifier, images: Images, labels: Labels) -> Gradients:
    """Gradients of the cross-entropy of ``labels``, for images (n, c, h, w) in [0, 1]; on the CPU, rows as in any
    batch."""
    return _gradients(classifier, images, labels, logarithmic=True)


def margin_gradient(classifier: Classifier, images: Images, labels: Labels) -> Gradients:
    """Gradients of the margin of another decision: largest other logit less the label's. Never saturates."""
    return _gradients(classifier, images, labels, logarithmic=False)


def _gradients(classifier: Classifier, images: Images, labels: Labels, *, logarithmic: bool) -> Gradients:
    images = check_images(images)
    goal = Untargeted(labels).prepare(classifier.head, len(classifier.classes), len(images), classifier.device)
    parts = []
    with classifier.borrowed():
        for rows in torch.arange(len(images)).split(classifier.batch_size(images.shape)):
            here, aim = images[rows].to(classifier.device), goal.take(rows.to(classifier.device))
            output = slope(classifier, here, aim, cross_entropy if logarithmic else margin)
            # the loss that is followed is the logarithm of the cross-entropy L: dL = L d(log L)
            scale = output.scale.log() + (output.loss if logarithmic else 0.0)
            loss = output.loss.exp() if logarithmic else output.loss
            parts.append([v.cpu() for v in (output.gradient, scale, loss, output.logits)])
    return Gradients(*(torch.cat(column) for column in zip(*parts, strict=True)))
