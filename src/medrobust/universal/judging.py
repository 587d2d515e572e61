"""The grader of universal perturbations: in float32, on clipped pixels, and on what saving leaves of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Lazy, check_images, chunks, save_at
from medrobust.stats import Estimate, proportion
from medrobust.threat.balls import TOLERANCE
from medrobust.universal.outcome import UniversalOutcome
from medrobust.universal.perturbation import Universal


def judge(
    classifier: Classifier,
    images: Images | Lazy,
    v: Universal,
    labels: Tensor | np.ndarray | None = None,
    groups: Sequence[object] | np.ndarray | None = None,
    bits: int = 8,
    *,
    span: int = 1,
    clean: np.ndarray | None = None,
) -> UniversalOutcome:
    """The effect of ``v`` on these images, which should not be those it was made from.

    images: (n, c, h, w) in [0, 1], or lazy such as a Dataset. labels: the truth, (n,), for accuracy, sensitivity and
    specificity. groups: a patient for each image. bits, span: the depth of saved images, see ``save_at``.
    clean: the clean decisions where they are known from an earlier outcome; saves one pass of three.
    InputError where the perturbation does not fit the images (``v.resized`` makes it fit).
    """
    classifier = classifier.original or classifier  # decisions are those of the network as it was delivered
    n = len(images)
    for name, given in (("labels", labels), ("groups", groups), ("clean", clean)):
        if given is not None and len(given) != n:
            raise InputError(f"{n} images but {len(given)} {name}; give one an image")
    parts: list[list[Tensor]] = [[], [], []]
    with classifier.borrowed():
        for chunk in chunks(images, classifier.batch_size((1, *v.delta.shape))):
            chunk = check_images(chunk)
            attacked = classifier.confined(chunk, v.apply(chunk))
            versions = (None if clean is not None else chunk, attacked, save_at(attacked, bits, span))
            for part, pixels in zip(parts, versions, strict=True):
                if pixels is not None:
                    part.append(classifier.predict(pixels).cpu())
    before, after, saved = (_numbers(part, classifier) for part in parts)
    return UniversalOutcome(
        clean=before if clean is None else np.asarray(clean),
        after=after,
        after_saving=saved,
        classes=classifier.classes,
        target=v.target,
        legal=v.size <= float(v.ball.eps) + TOLERANCE,
        bits=bits,
        labels=None if labels is None else np.asarray(labels),
        groups=None if groups is None else tuple(groups),
    )


def fooling_rate(classifier: Classifier, images: Images | Lazy, v: Universal) -> Estimate:
    """Rf: share of the images whose decision changes under ``v``, against the clean prediction."""
    hits: list[Tensor] = []
    with classifier.borrowed():
        for chunk in chunks(images, classifier.batch_size((1, *v.delta.shape))):
            changed = classifier.predict(chunk) != classifier.predict(classifier.confined(chunk, v.apply(chunk)))
            hits.append(changed.flatten(1).any(1) if changed.ndim > 1 else changed)
    return proportion(torch.cat(hits).cpu().numpy() if hits else [])


def _numbers(part: list[Tensor], classifier: Classifier) -> np.ndarray:
    if part:
        return torch.cat(part).numpy()
    return np.zeros((0, len(classifier.classes)) if classifier.head.name == "multilabel" else 0, np.int64)
