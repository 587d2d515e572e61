"""The loss around an image: over a plane of two directions, as Ma et al. 2020 show it (Li et al. 2018, arXiv:1712.09913
look at weights in this way, here it is pixels)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.explain.gradients import loss_gradient
from medrobust.images import Images, Labels, check_images, renumbered
from medrobust.seeds import Id
from medrobust.threat import Untargeted

GRID = tuple(0.5 * k / 255 for k in range(17))
"""0 to 8/255 in steps of 0.5/255, as published."""


def random_direction(images: Images, seed: int = 0, ids: Sequence[Id] | None = None) -> Images:
    """-1 and 1 with equal odds, keyed by (seed, image id): the same Linf length as a sign gradient."""
    return seeds.signs(seed, "landscape", range(len(images)) if ids is None else ids, images.shape[1:])


def landscape(
    classifier: Classifier, images: Images, labels: Labels, first: Images, second: Images, grid: Sequence[float] = GRID
) -> Tensor:
    """Cross-entropy in nats, float64 (n, len(grid), len(grid)), at images + a * first + b * second, cut to [0, 1].

    [i, a, b]: grid[a] along ``first``, grid[b] along ``second`` (both (n, c, h, w)). At grid[0] = 0 it is the loss of
    the image. All points of all images share full batches; no more than one of them is in memory.
    """
    images, first, second = check_images(images).cpu(), first.cpu(), second.cpu()  # points are moved a batch at a time
    if not first.shape == second.shape == images.shape:
        raise InputError(
            f"directions must have the images' shape {tuple(images.shape)}, "
            f"got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    n, side = len(images), len(grid)
    goal = Untargeted(labels).prepare(classifier.head, len(classifier.classes), n, images.device)
    steps, out = torch.tensor(grid, dtype=torch.float32), torch.empty(n * side * side, dtype=torch.float64)
    with classifier.borrowed():
        for points in torch.arange(out.numel()).split(classifier.batch_size(images.shape)):
            image, place = points // side**2, points % side**2
            a, b = (steps[k].view(-1, 1, 1, 1) for k in (place // side, place % side))
            at = (images[image] + a * first[image] + b * second[image]).clamp(0, 1)
            logits = classifier.logits(at).double()
            out[points] = goal.take(image).cross_entropy(classifier.head, logits).exp()
    return out.view(n, side, side)


def planes(
    classifier: Classifier,
    images: Images,
    labels: Labels,
    *,
    second: Classifier | None = None,
    grid: Sequence[float] = GRID,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
) -> dict[str, Tensor]:
    """{"random": …} through the model's sign gradient and a random direction, and {"second": …} through it and that of
    an independently trained model, as published, where one is given."""
    own = loss_gradient(classifier, images, labels).sign
    out = {}
    if second is not None:
        aligned = renumbered(labels, classifier.classes, second.classes)
        out["second"] = landscape(classifier, images, labels, own, loss_gradient(second, images, aligned).sign, grid)
    out["random"] = landscape(classifier, images, labels, own, random_direction(images, seed, ids), grid)
    return out
