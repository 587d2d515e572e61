"""One look at the whole system, classifier and detector: one forward pass, gradients of any loss on what it showed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from medrobust.classifier import Classifier, pad
from medrobust.detectors import Detector, Features
from medrobust.detectors.features import LOGITS
from medrobust.evasion.surrogates import Surrogate, surrogate
from medrobust.images import Attackable, Images, PerImage
from medrobust.threat import Goal, Targeted

AGREES = 1e-3
"""Largest difference of a layer of the folded network, relative to the layer's largest number."""


@dataclass
class JointOutput:
    """The output for n rows. Losses are functions of ``table`` (float64 leaves) and are to be ascended.

    table: layer -> (batch_size, d), the first n rows are these; the others fill up the batch.
    """

    images: Images
    goal: Goal
    table: dict[str, Tensor]
    margin: PerImage
    """> 0: the classifier is fooled; float64, with its graph."""
    fooled: Tensor
    aimed: Tensor
    """int64: the wrong class that leads; for a target, the target."""
    score: PerImage
    """The real detector's, without a graph; inf where it is no number."""
    suspicion: Callable[[], PerImage]
    """The surrogate's score of the class aimed at, float64 with its graph."""
    back: Callable[[dict[str, Tensor]], Images] = field(repr=False)
    attackable: Attackable

    def gradient(self, loss: PerImage) -> Images:
        """Gradient of ``loss`` with respect to the images; 0 where following it would leave what may be
        attacked. Only its direction counts.

        What goes back into the network is scaled to a largest entry of 1 a row, so that no gradient is lost to
        float32's range.
        """
        if not loss.requires_grad:
            return torch.zeros_like(self.images)
        gradients = torch.autograd.grad(loss.sum(), list(self.table.values()), retain_graph=True, allow_unused=True)
        pulls = {
            name: pull.nan_to_num(0.0, 0.0, 0.0)
            for name, pull in zip(self.table, gradients, strict=True)
            if pull is not None
        }
        top = torch.stack([p.abs().amax(1) for p in pulls.values()]).amax(0)[:, None]
        pulls = {name: torch.where(top > 0, p / top, p) for name, p in pulls.items()}
        slope = self.back(pulls).nan_to_num(0.0, 0.0, 0.0)
        return slope.masked_fill(self.attackable.outward(self.images, slope), 0.0)


class JointModel:
    """Looks at a classifier and its detector. A row is the same to the bit whatever stands beside it."""

    def __init__(self, classifier: Classifier, detector: Detector) -> None:
        self.classifier, self.detector = classifier, detector
        self.features = Features(classifier, detector.layers_)
        self.surrogate: Surrogate = surrogate(detector)

    def evaluate(self, images: Images, goal: Goal) -> JointOutput:
        """images: (n, c, h, w), n at most ``batch_size``; goal: prepared for them."""
        n, head = len(images), self.classifier.head
        batch_size = self.classifier.batch_size(images.shape)
        padded = pad(images.detach(), self.classifier.fit(n, images.shape)).requires_grad_()
        with torch.enable_grad():
            _, layers = self.features.differentiable(padded)
            # the network may run narrower where that gives the same bits; the detector's products have full batches
            every = {
                name: _filled(value.detach().double(), batch_size).requires_grad_() for name, value in layers.items()
            }
            logits = every[LOGITS][:n]
            margin = goal.margin(head, logits)
        aimed = aim(goal, logits.detach())
        finite = torch.isfinite(logits).all(1)
        with torch.no_grad():
            score = self.detector.suspicion({name: v.float() for name, v in every.items()})[:n].double()
            fooled = goal.reached(head, layers[LOGITS][:n]) & finite

        def suspicion() -> PerImage:
            with torch.enable_grad():
                return self.surrogate(every, _filled(aimed, batch_size))[:n]

        def back(pulls: dict[str, Tensor]) -> Images:
            used = [name for name in pulls if layers[name].requires_grad]
            if not used:  # the network cuts the graph: a zero gradient
                return torch.zeros_like(images)
            values, given = (
                [layers[name] for name in used],
                [pulls[name][: len(padded)].to(layers[name].dtype) for name in used],
            )
            (slope,) = torch.autograd.grad(values, padded, given, retain_graph=True, allow_unused=True)
            return torch.zeros_like(images) if slope is None else slope[:n].detach()

        score = score.nan_to_num(torch.inf, torch.inf, -torch.inf)
        attackable = self.classifier.attackable
        return JointOutput(images, goal, every, margin, fooled, aimed, score, suspicion, back, attackable)


def _filled(values: Tensor, batch_size: int) -> Tensor:
    """``values`` with rows of 0 behind them up to ``batch_size`` rows."""
    return torch.cat([values, values.new_zeros((batch_size - len(values), *values.shape[1:]))])


def aim(goal: Goal, logits: Tensor) -> Tensor:
    """int64 (n,): the target, or the class other than the label that is nearest to winning."""
    assert goal.labels is not None
    if isinstance(goal, Targeted):
        return goal.labels
    return logits.scatter(1, goal.labels[:, None], -torch.inf).argmax(1)


def quick(classifier: Classifier, detector: Detector, shape: tuple[int, ...]) -> Classifier:
    """``classifier.fast`` where every layer the detector reads is still there and says the same; else itself."""
    fast = classifier.fast(shape)
    if fast is classifier:
        return classifier
    names = set(dict(fast.net.named_modules())) | {"penultimate", LOGITS}
    if not set(detector.layers_) <= names:
        return classifier
    images = torch.rand(2, *shape[1:], generator=torch.Generator().manual_seed(2))
    exact, folded = (Features(c, detector.layers_)(images) for c in (classifier, fast))
    same = all((exact[k] - folded[k]).abs().max() <= AGREES * exact[k].abs().max() for k in exact)
    return fast if same else classifier
