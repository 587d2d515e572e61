"""Measures of one image in one number, to be correlated with its eps*: the table, and one pass that fills it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.explain.concentration import gini, half_share
from medrobust.explain.gradcam import grad_cam
from medrobust.explain.gradients import Gradients, loss_gradient, margin_gradient
from medrobust.explain.hessian import curvature
from medrobust.explain.layers import middle
from medrobust.explain.plane import random_direction
from medrobust.explain.representation import simplicity
from medrobust.explain.saliency import integrated_map, over_channels, smooth_map
from medrobust.images import Images, Labels, Lazy, PerImage, check_images
from medrobust.seeds import Id
from medrobust.threat import Untargeted


@dataclass(frozen=True)
class MeasureInput:
    """Some images and what is known of them."""

    classifier: Classifier
    images: Images
    labels: Labels
    ids: Sequence[Id]
    seed: int
    layer: str | None
    """Of the measures of simplicity."""

    @cached_property
    def gradient(self) -> Gradients:
        """Of the loss; several measures read it."""
        return loss_gradient(self.classifier, self.images, self.labels)


Numbers = dict[str, PerImage]
Part = Callable[[MeasureInput], Numbers]


@dataclass(frozen=True)
class Measure:
    """One number an image. NaN: nothing can be said (no gradient, a map of zeros)."""

    title: str
    unit: str
    source: str
    part: Part
    """Computes it, and others that come with it."""
    more_is_fragile: bool | None = None
    """Expected direction, by the paper or by geometry: True where larger values should go with a smaller eps*."""


def _gradient(b: MeasureInput) -> Numbers:
    maps = over_channels(b.gradient.direction)
    by_name = {
        "slope-l1": b.gradient.norm(1) / 255,
        "slope-l2": b.gradient.norm(2),
        "loss": b.gradient.loss,
        "saliency-gini": gini(maps),
        "saliency-half": half_share(maps),
    }
    return {name: values.masked_fill(b.gradient.no_gradient, torch.nan) for name, values in by_name.items()}


def _margin(b: MeasureInput) -> Numbers:
    gradients = margin_gradient(b.classifier, b.images, b.labels)
    slope = gradients.norm(1).masked_fill(gradients.no_gradient, torch.nan)
    return {"margin": -gradients.loss, "margin-slope": slope / 255, "linear-eps": -gradients.loss / slope * 255}


def _curvature(b: MeasureInput) -> Numbers:
    return {"curvature": curvature(b.classifier, b.images, b.labels, seed=b.seed, ids=b.ids).value}


def _rise(b: MeasureInput) -> Numbers:
    """Loss at 1/255 along two directions, less that of the image."""
    goal = Untargeted(b.labels).prepare(b.classifier.head, len(b.classifier.classes), len(b.images), b.images.device)

    def loss(images: Images) -> PerImage:
        return goal.cross_entropy(b.classifier.head, b.classifier.logits(images).double()).exp()

    clean = loss(b.images)
    along = {"rise-gradient": b.gradient.sign, "rise-random": random_direction(b.images, b.seed, b.ids)}
    return {name: loss((b.images + d / 255).clamp(0, 1)) - clean for name, d in along.items()}


def _integrated(b: MeasureInput) -> Numbers:
    maps = integrated_map(b.classifier, b.images, b.labels)
    return {"integrated-gini": gini(maps), "integrated-half": half_share(maps)}


def _smooth(b: MeasureInput) -> Numbers:
    maps = smooth_map(b.classifier, b.images, b.labels, seed=b.seed, ids=b.ids)
    return {"smooth-gini": gini(maps), "smooth-half": half_share(maps)}


def _cam(b: MeasureInput) -> Numbers:
    return {"cam-half": half_share(grad_cam(b.classifier, b.images))}


def _layer(b: MeasureInput) -> Numbers:
    assert b.layer is not None
    return simplicity(b.classifier, b.images, (b.layer,))[b.layer]


MA = "Ma et al. 2020"
ROY = "Roy & Vetterli 2007"
HURLEY = "Hurley & Rickard 2009, arXiv:0811.4706"
HEIN = "Hein & Andriushchenko 2017, arXiv:1705.08475"
DEEPFOOL = "Moosavi-Dezfooli et al. 2016, arXiv:1511.04599"
CURE = "Moosavi-Dezfooli et al. 2019, arXiv:1811.09716"
AXIOMS = "Sundararajan et al. 2017, arXiv:1703.01365"
NOISE = "Smilkov et al. 2017, arXiv:1706.03825"
CAM = "Selvaraju et al. 2017, arXiv:1610.02391"
LEVEL, PIXELS, GINI = "per 1/255 of every pixel", "share of the pixels", "0 flat, 1 one pixel"

MEASURES: dict[str, Measure] = {
    "slope-l1": Measure("Slope of the loss (L1 norm of the gradient)", f"nats {LEVEL}", MA, _gradient, True),
    "slope-l2": Measure("Length of the input gradient (L2)", "nats per L2 unit", MA, _gradient, True),
    "loss": Measure("Cross-entropy of the label", "nats", "", _gradient, True),
    "saliency-gini": Measure("Concentration of the gradient (Gini)", GINI, HURLEY, _gradient, False),
    "saliency-half": Measure("Pixels that hold half of the gradient", PIXELS, MA, _gradient, True),
    "margin": Measure("Lead of the label's logit", "logits", "", _margin, False),
    "margin-slope": Measure("Slope of that lead (L1)", f"logits {LEVEL}", HEIN, _margin, True),
    "linear-eps": Measure("Lead over its slope: eps* of a linear network", "1/255", DEEPFOOL, _margin, False),
    "curvature": Measure("Largest Hessian eigenvalue of the loss", "nats per squared L2 unit", CURE, _curvature, True),
    "rise-gradient": Measure("Rise of the loss along the gradient's sign, 1/255", "nats", MA, _rise, True),
    "rise-random": Measure("Rise of the loss along random signs, 1/255", "nats", MA, _rise, True),
    "integrated-gini": Measure("Concentration of integrated gradients (Gini)", GINI, AXIOMS, _integrated, False),
    "integrated-half": Measure("Pixels that hold half of integrated gradients", PIXELS, AXIOMS, _integrated, True),
    "smooth-gini": Measure("Concentration of SmoothGrad (Gini)", GINI, NOISE, _smooth, False),
    "smooth-half": Measure("Pixels that hold half of SmoothGrad", PIXELS, NOISE, _smooth, True),
    "cam-half": Measure("Pixels that hold half of Grad-CAM", PIXELS, CAM, _cam, True),
    "effective-rank": Measure("Effective rank of the middle layer", "dimensions", ROY, _layer, False),
    "relative-rank": Measure("Effective rank over the largest possible", "share", ROY, _layer, False),
    "spectral-entropy": Measure("Spectral entropy of the middle layer", "0 one wave, 1 white", MA, _layer, False),
    "spatial-entropy": Measure("Spatial entropy of the middle layer", "0 one place, 1 everywhere", MA, _layer, False),
}
"""Read by the command line, by studies and by reports. Each needs a clean image only, so that one which follows eps*
foretells it."""


def measure(
    classifier: Classifier,
    images: Images | Lazy,
    labels: Labels,
    names: Sequence[str] | None = None,
    *,
    ids: Sequence[Id] | None = None,
    seed: int = 0,
    layer: str | None = None,
    advance: Callable[[int], None] | None = None,
) -> dict[str, Tensor]:
    """name -> float64 (n,), on the CPU; an image's numbers do not depend on the others.

    images: (n, c, h, w) in [0, 1], or a Dataset: of it one batch is in memory at a time. labels: int64 (n,). names: of
    ``MEASURES``, all of them when not given. ids: what the noise of SmoothGrad, the random direction and the start of
    Lanczos are keyed by; position when not given. layer: for the measures of simplicity; ``layers.middle`` when not
    given. InputError for an unknown name (with those there are) or layer.
    """
    names = list(MEASURES if names is None else names)
    for name in names:
        if name not in MEASURES:
            raise InputError(f"measure {name!r} is not known; choose from {', '.join(MEASURES)}")
    n = len(images)
    if not n or len(labels) != n:
        raise InputError(f"{n} images and {len(labels)} labels; give at least one image, and a label each")
    ids = list(range(n) if ids is None else ids)
    shape = (images[:1] if isinstance(images, Tensor) else images.images([0])).shape
    parts = dict.fromkeys(MEASURES[name].part for name in names)
    if layer is None and _layer in parts:
        layer = middle(classifier, shape)
    out: dict[str, list[PerImage]] = {name: [] for name in names}
    for rows in torch.arange(n).split(classifier.batch_size(shape)):
        some = images[rows] if isinstance(images, Tensor) else images.images(rows.tolist())
        batch = MeasureInput(
            classifier, check_images(some).cpu(), labels[rows], [ids[i] for i in rows.tolist()], seed, layer
        )
        by_name = {name: values for part in parts for name, values in part(batch).items()}
        for name in names:
            out[name].append(by_name[name])
        if advance is not None:
            advance(len(rows))
    return {name: torch.cat(values) for name, values in out.items()}
