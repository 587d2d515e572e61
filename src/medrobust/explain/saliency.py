"""Which pixels the loss depends on: input gradient (Simonyan et al. 2013, arXiv:1312.6034), as Ma et al. 2020 show it;
integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365); SmoothGrad (Smilkov et al. 2017, arXiv:1706.03825).

Every map is float32 (n, h, w), >= 0, the absolute value of the sum over channels, known up to a factor an image: only
``gradient_map`` has a length that can be compared between images, and it says it as a logarithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.classifier import Classifier, pad
from medrobust.explain.gradients import loss_gradient
from medrobust.images import Images, Labels, PerImage, check_images
from medrobust.seeds import Id
from medrobust.threat import Untargeted


def gradient_map(classifier: Classifier, images: Images, labels: Labels) -> tuple[Tensor, PerImage]:
    """The input gradient of the cross-entropy, and the logarithm (float64) of what the map is to be multiplied with."""
    gradients = loss_gradient(classifier, images, labels)
    return over_channels(gradients.direction), gradients.log_scale


def smooth_map(
    classifier: Classifier,
    images: Images,
    labels: Labels,
    *,
    samples: int = 16,
    sigma: float = 0.1,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
) -> Tensor:
    """Mean gradient over noisy copies, Gaussian with ``sigma`` as a share of the pixel range, cut to [0, 1].

    captum's NoiseTunnel draws from torch's global stream, so that an image's map would depend on its batch; here the
    noise is keyed by (seed, id). Gradients of different copies are added at their true lengths.
    """
    images = check_images(images).cpu()
    ids = range(len(images)) if ids is None else ids
    total, level = torch.zeros_like(images), torch.full((len(images),), -torch.inf, dtype=torch.float64)
    for k in range(samples):
        noise = seeds.normal(seed, f"smoothgrad/{k}", ids, images.shape[1:])
        gradients = loss_gradient(classifier, (images + sigma * noise).clamp(0, 1), labels)
        top = torch.maximum(level, gradients.log_scale)
        # kept relative to the longest gradient so far: their own lengths may lie below float32
        kept, added = ((v - top).exp().nan_to_num(0.0).float().view(-1, 1, 1, 1) for v in (level, gradients.log_scale))
        total, level = total * kept + gradients.direction.nan_to_num(0.0, 0.0, 0.0) * added, top
    return over_channels(total)


def integrated_gradients(
    classifier: Classifier, images: Images, labels: Labels, *, steps: int = 32, baseline: float = 0.0
) -> Images:
    """Attribution of every pixel, float32 (n, c, h, w), to the lead of the label's logit over the next one.

    The lead, not the probability: it does not saturate, and exists for every head. Complete: an image's attributions
    sum to its lead less that of the baseline, an image of this grey value, up to the error of ``steps`` points of
    Gauss-Legendre quadrature (captum's IntegratedGradients).
    """
    from captum.attr import IntegratedGradients

    images = check_images(images)
    batch_size, here = classifier.batch_size(images.shape), classifier.device
    goal = Untargeted(labels).prepare(classifier.head, len(classifier.classes), len(images), here)
    assert goal.labels is not None

    def lead(some: Images, label: Labels) -> PerImage:
        return classifier.head.gap(classifier(some), label)

    method, parts = IntegratedGradients(lead, multiply_by_inputs=True), []
    with classifier.borrowed():
        # always full batches: captum then makes one pass a point, all of one shape, and adds them up in one order
        for chunk, label in zip(images.split(batch_size), goal.labels.split(batch_size), strict=True):
            full_label = label.new_zeros(batch_size, *label.shape[1:])
            full_label[: len(chunk)] = label
            given = method.attribute(
                pad(chunk.to(here), batch_size),
                baseline,
                additional_forward_args=(full_label,),
                n_steps=steps,
                internal_batch_size=batch_size,
            )
            parts.append(given[: len(chunk)].float().cpu())
    return torch.cat(parts)


def integrated_map(classifier: Classifier, images: Images, labels: Labels, *, steps: int = 32) -> Tensor:
    """Integrated gradients from black as a map."""
    return over_channels(integrated_gradients(classifier, images, labels, steps=steps))


Saliency = Callable[[Classifier, Images, Labels, int, Sequence[Id]], Tensor]

SALIENCIES: dict[str, Saliency] = {
    "gradient": lambda classifier, images, labels, *_: gradient_map(classifier, images, labels)[0],
    "integrated": lambda classifier, images, labels, *_: integrated_map(classifier, images, labels),
    "smooth": lambda classifier, images, labels, seed, ids: smooth_map(classifier, images, labels, seed=seed, ids=ids),
}
"""name -> f(classifier, images, labels, seed, ids), a map (n, h, w) up to a factor an image."""


def over_channels(gradient: Images) -> Tensor:
    """(n, c, h, w) to (n, h, w): the absolute value of the sum, as published; what is not finite counts as 0."""
    return gradient.nan_to_num(0.0, 0.0, 0.0).sum(1).abs()
