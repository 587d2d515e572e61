"""Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391): where in the image a decision comes from, and its centre."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medrobust.classifier import Classifier, pad
from medrobust.detectors.features import Features
from medrobust.errors import InputError
from medrobust.explain.layers import last_spatial
from medrobust.images import Images, Labels, PerImage, check_images
from medrobust.layer_probe import map_layout, readable
from medrobust.layout import tensor_of


def grad_cam(
    classifier: Classifier, images: Images, classes: Labels | None = None, *, layer: str | None = None
) -> Tensor:
    """float32 (n, h, w) at the images' size, >= 0: what in ``layer`` speaks for each image's class.

    classes: int64 (n,), the class whose logit is explained; the decision where not given. layer: name of a module with
    a map; the last one where not given (see ``layers.last_spatial``). A map of zeros: nothing there speaks for it.
    """
    images = check_images(images)
    layer = layer or last_spatial(classifier, images.shape)
    Features(classifier, (layer,), maps=True)  # says which layers there are where this one is not
    if classes is None:
        classes = classifier.predict(images)
    if classes.shape != (len(images),):
        raise InputError(f"{len(images)} images but classes of shape {tuple(classes.shape)}; give one class an image")
    parts = []
    with classifier.borrowed():
        for rows in torch.arange(len(images)).split(classifier.batch_size(images.shape)):
            parts.append(_of_batch(classifier, images[rows], classes[rows.to(classes.device)], layer).cpu())
    return torch.cat(parts)


def _of_batch(classifier: Classifier, images: Images, classes: Labels, layer: str) -> Tensor:
    n = len(images)
    padded = pad(images.to(classifier.device), classifier.fit(n, images.shape))
    # this runs the network: one seen for the first time is asked twice, before the hook listens
    read = map_layout(classifier, images.shape, layer).maps
    caught: list[Tensor] = []

    def cut(_: nn.Module, __: Any, output: Any) -> Any:
        """The layer's output becomes the start of the graph; what follows gets a copy that it may overwrite."""
        caught.append(tensor_of(output, layer).detach().requires_grad_())
        given = caught[-1].clone()
        return given if isinstance(output, Tensor) else type(output)((given, *output[1:]))

    hook = readable(classifier)[layer].register_forward_hook(cut)
    try:
        with torch.enable_grad():
            logits = classifier(padded)
    finally:
        hook.remove()
    if not caught:
        raise InputError(f"layer {layer!r} is not run when the network classifies an image; name another")
    answer = caught[-1]  # of a module that runs more than once, the last run
    pull = F.one_hot(classes.to(logits.device), logits.shape[1]).to(logits)
    given: tuple[Tensor | None, ...] = (None,)
    if logits.requires_grad:
        given = torch.autograd.grad(logits[:n], answer, pull, allow_unused=True)
    gradient = read(torch.zeros_like(answer) if given[0] is None else given[0])
    weight = gradient.mean((2, 3), keepdim=True)
    cam = (weight * read(answer.detach())).sum(1, keepdim=True)[:n].relu().float()
    if classifier.preprocessing is not None:  # what was cropped or padded lies elsewhere in the image
        return classifier.preprocessing.back(cam[:, 0], (images.shape[-2], images.shape[-1]))
    return F.interpolate(cam, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]


def centre(maps: Tensor) -> Tensor:
    """float64 (n, 2): centre of mass (row, column) of maps (n, h, w) >= 0, in pixels; NaN for a map of zeros."""
    mass = maps.double()
    rows, columns = mass.sum(2), mass.sum(1)
    total = rows.sum(1)
    place = [(m * torch.arange(m.shape[1], dtype=torch.float64)).sum(1) / total for m in (rows, columns)]
    return torch.stack(place, 1)


def shift(before: Tensor, after: Tensor) -> PerImage:
    """float64 (n,): how far the centre moves, in pixels; over ``diagonal(before)`` it is a share of the image."""
    distance: Tensor = (centre(after) - centre(before)).norm(dim=1)
    return distance


def diagonal(maps: Tensor) -> float:
    """The longest way that a centre could go, in pixels: from corner pixel to corner pixel."""
    return float(torch.tensor([maps.shape[-2] - 1.0, maps.shape[-1] - 1.0]).norm())
