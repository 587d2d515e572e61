"""Randomized smoothing (Cohen et al. 2019, arXiv:1902.02918): a proof in L2 for every classifier, from answers alone.

The smoothed classifier decides as most of the answers to noisy copies of an image do: pixels + normal noise of standard
deviation sigma, cut off at [0, 1]. (Cutting off belongs to the classifier that is smoothed, so that the proof holds; a
classifier is asked about nothing but images.) What is proved is about the smoothed classifier, which is another one
than the classifier by itself.

Two sets of draws: the first chooses the class, the second gives a lower bound of its probability by Clopper and
Pearson 1934 (exact binomial), which fails with a probability of at most ``alpha`` an image. Where the bound is not
above 1/2 the smoothed classifier abstains. Several findings: each is decided and bounded by itself, at alpha over their
number.

The noise is that of float32 numbers: the difference from real normal noise is not covered by the bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from medrobust import seeds
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import UNKNOWN, Images, Labels, PerImage, check_images

ABSTAINED = -1
"""Stands as the decision of a smoothed classifier that is not sure enough."""


@dataclass(frozen=True)
class Smoothing:
    """sigma: of the noise, a fraction of the pixel range. choosing, draws: noisy copies of an image that choose the
    class and that bound its probability. alpha: the probability that the proof of an image is wrong.

    InputError for what is not possible.
    """

    sigma: float
    draws: int = 1000
    choosing: int = 100
    alpha: float = 0.001

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise InputError(f"the noise of a smoothed classifier must be positive, got {self.sigma}")
        if self.draws < 1 or self.choosing < 1:
            raise InputError("smoothing needs at least one draw to choose the class and one to bound its probability")
        if not 0 < self.alpha < 0.5:
            raise InputError(f"alpha is a probability between 0 and 0.5, got {self.alpha}")


class Smoothed(NamedTuple):
    """decision: int64 (n,) or (n, k) of 0 and 1, ABSTAINED where it is not sure. radius: float64 of that shape, the L2
    length within which the decision does not change; 0 where it abstains."""

    decision: Labels
    radius: Tensor

    def certificate(self, labels: Labels) -> PerImage:
        """float64 (n,): the L2 length within which each image is read rightly; negative where it is not, or where the
        smoothed classifier abstains. Unknown findings do not matter."""
        held = torch.where(self.decision == labels, self.radius, -1.0)
        return held if held.ndim == 1 else torch.where(labels == UNKNOWN, torch.inf, held).amin(1)

    @property
    def abstains(self) -> Tensor:
        """bool (n,): of several findings, on any of them."""
        open_ = self.decision == ABSTAINED
        return open_ if open_.ndim == 1 else open_.any(1)


def lower_limit(hits: Tensor, n: int, alpha: float) -> Tensor:
    """Clopper and Pearson's one-sided lower limit of a probability, at confidence 1 - alpha, from so many of n."""
    from scipy.stats import beta

    limit = beta.ppf(alpha, hits.double().numpy(), (n - hits + 1).double().numpy())
    return torch.where(hits > 0, torch.as_tensor(limit).nan_to_num(0.0), 0.0)


@torch.no_grad()
def smooth(
    classifier: Classifier,
    images: Images,
    smoothing: Smoothing,
    *,
    seed: int = 0,
    ids: Sequence[seeds.Id] | None = None,
    advance: Callable[[int], None] | None = None,
) -> Smoothed:
    """The smoothed classifier's decisions on ``images`` (n, c, h, w), and the radius of each.

    Draws are keyed by (seed, id), so that an image's result is the same in any batch. ids: positions where not given.
    """
    from scipy.stats import norm

    images = check_images(images)
    several = classifier.head.multilabel
    decided, radius = [], []
    for image, image_id in zip(images.split(1), range(len(images)) if ids is None else ids, strict=True):
        first = _votes(classifier, image, smoothing.choosing, smoothing, seed, f"{image_id}/choosing")
        votes = _votes(classifier, image, smoothing.draws, smoothing, seed, f"{image_id}/draws")
        chosen = (2 * first > smoothing.choosing).long() if several else first.argmax(0, keepdim=True)
        hits = torch.where(chosen == 1, votes, smoothing.draws - votes) if several else votes[chosen]
        alpha = smoothing.alpha / len(chosen)
        limit = lower_limit(hits, smoothing.draws, alpha)
        sure = limit > 0.5
        decided.append(torch.where(sure, chosen, ABSTAINED))
        radius.append(torch.where(sure, smoothing.sigma * torch.as_tensor(norm.ppf(limit.numpy())), 0.0))
        if advance is not None:
            advance(1)
    shape = (len(images), -1) if several else (-1,)
    return Smoothed(torch.stack(decided).view(shape), torch.stack(radius).view(shape))


def _votes(classifier: Classifier, image: Images, draws: int, smoothing: Smoothing, seed: int, name: str) -> Tensor:
    """int64 (k,): how many noisy copies are decided as each class, or have each finding."""
    classes, size = len(classifier.classes), classifier.batch_size(image.shape)
    votes = torch.zeros(classes, dtype=torch.int64)
    for start in range(0, draws, size):
        count = min(size, draws - start)
        noise = seeds.normal(seed, "smoothing", [f"{name}/{start}"], (count, *image.shape[1:]))[0]
        decided = classifier.predict((image + smoothing.sigma * noise.to(image.device)).clamp(0, 1)).cpu()
        votes += decided.sum(0) if decided.ndim == 2 else decided.bincount(minlength=classes)
    return votes
