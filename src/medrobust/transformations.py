"""What happens to an image on its way: saving, compression, resizing, another window, a screenshot; with gradients.

Forward, each is the real operation. Backward, rounding and compression are passed as if they were not there (BPDA,
Athalye et al. 2018, arXiv:1802.00420), and the rest by its derivative. An attack on
``after(classifier, transformation, images)`` makes examples that survive it.
"""

from __future__ import annotations

import dataclasses
import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from medrobust.classifier import Classifier
from medrobust.images import Images, Logits, Rounded
from medrobust.models.form import Form
from medrobust.models.resampling import EightBits

Transformation = Callable[[Images], Images]
"""Images (n, c, h, w) in [0, 1] to images of the same shape in [0, 1]; each row by itself, differentiable."""

GAMMA = 1.1
"""Of a screen whose curve differs from that of the file."""


class _File(torch.autograd.Function):
    """Images written as 8-bit files by Pillow and read again; the gradient is that of the identity."""

    @staticmethod
    def forward(ctx: Any, images: Images, kind: str, options: Mapping[str, Any]) -> Images:  # noqa: ARG004
        pixels = images.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        read = np.stack([_written(one.squeeze(-1) if one.shape[-1] == 1 else one, kind, options) for one in pixels])
        back = torch.from_numpy(read).to(images) / 255
        return back[:, None] if back.ndim == 3 else back.permute(0, 3, 1, 2).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ARG004
        return gradients[0], None, None


def _written(pixels: np.ndarray, kind: str, options: Mapping[str, Any]) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **options)
    return np.asarray(Image.open(io.BytesIO(stream.getvalue())))


def rounded(bits: int) -> Transformation:
    """Saved at that bit depth."""
    return lambda images: Rounded.apply(images, 2**bits - 1)


def jpeg(quality: int) -> Transformation:
    """Saved as JPEG by Pillow, colour at half resolution as by default."""
    return lambda images: _File.apply(images, "JPEG", {"quality": quality})


def jpeg2000(ratio: int) -> Transformation:
    """Saved as lossy JPEG 2000 (irreversible wavelet) at ``ratio`` : 1 by Pillow's OpenJPEG."""

    def transformed(images: Images) -> Images:
        smaller = max(1, min(6, int(math.log2(min(images.shape[-2:])))))
        rate = {"quality_mode": "rates", "quality_layers": [ratio], "irreversible": True, "num_resolutions": smaller}
        compressed: Images = _File.apply(images, "JPEG2000", rate)
        return compressed

    return transformed


def resized(library: str) -> Transformation:
    """To half of its sides and back, bilinear, as ``library`` ("pil" or "opencv") resizes 8-bit images."""

    def transformed(images: Images) -> Images:
        height, width = images.shape[-2:]
        half = max(1, height // 2), max(1, width // 2)
        small = EightBits.apply(images, *half, "bilinear", library, True)
        back: Images = EightBits.apply(small, height, width, "bilinear", library, True)
        return back

    return transformed


def contrast(factor: float) -> Transformation:
    """Values stretched around mid-grey, clipped, saved at 8 bits: another window."""
    return lambda images: Rounded.apply((0.5 + factor * (images - 0.5)).clamp(0, 1), 255)


def screenshot(gamma: float = GAMMA) -> Transformation:
    """Another gamma, then 8 bits."""
    # at 0 the slope of a root is infinite
    return lambda images: Rounded.apply(images.clamp_min(1e-4).pow(1 / gamma), 255)


TRANSFORMATIONS: dict[str, Transformation] = {
    "8 bits": rounded(8),
    "12 bits": rounded(12),
    "16 bits": rounded(16),
    "JPEG 95": jpeg(95),
    "JPEG 90": jpeg(90),
    "JPEG 75": jpeg(75),
    "JPEG 2000, 10:1": jpeg2000(10),
    "JPEG 2000, 20:1": jpeg2000(20),
    "half size and back, Pillow": resized("pil"),
    "half size and back, OpenCV": resized("opencv"),
    "contrast x 1.1": contrast(1.1),
    "contrast x 0.9": contrast(0.9),
    "screenshot": screenshot(),
}
"""By the name under which results have them."""
OPTIMISED = tuple(name for name in TRANSFORMATIONS if name not in ("12 bits", "16 bits"))
"""Those that an attack can be optimised through: finer rounding than at 8 bits changes little."""


class _After(nn.Module):
    """A classifier's logits after a transformation of its images."""

    def __init__(self, classifier: Classifier, transformation: Transformation) -> None:
        super().__init__()
        self.net = classifier.net
        self._classifier, self._transformation = classifier, transformation

    def forward(self, images: Images) -> Logits:
        return self._classifier(self._transformation(images))


def after(classifier: Classifier, transformation: Transformation, images: Images) -> Classifier:
    """The classifier that is given images after ``transformation``; of stored images, if ``classifier`` is.

    images: some that it will be given, which tell its channels.
    """
    classifier.ready(images)
    made = Classifier(
        _After(classifier.changed(stored_levels=None), transformation),
        classifier.classes,
        head="multilabel" if classifier.head.multilabel else "softmax",
        outputs="logits",
        channels=images.shape[1],
        batch_size=classifier.batch_size(images.shape),
    )
    assert classifier.inspection is not None
    made.inspection = dataclasses.replace(classifier.inspection, form=Form(), channels=images.shape[1])
    made.stored_levels, made.attackable = classifier.stored_levels, classifier.attackable
    return made
