"""Gradients that other networks share: input diversity, translation and scale invariance, variance, look-ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust import seeds
from medrobust.attacks.attack import Batch, ModelOutput, State, grade, slope
from medrobust.attacks.iterated import MIFGSM
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images

WIDE = (-1, 1, 1, 1)


class TransferableFGSM(MIFGSM):
    """MI-FGSM on gradients that are likely to hold for other networks. Its parts may be combined:

    diversity: the image is shrunk by up to this share and put at a random place on black before it is shown, with
        ``probability`` (DI-FGSM, Xie et al. 2019, arXiv:1803.06978); 0: never.
    translation: half side in pixels of the Gaussian (sigma: half of that) that smooths the gradient (TI-FGSM, Dong et
        al. 2019, arXiv:1904.02884); 0: none. sharpness: share of the gradient as it is in the result, 0 as published.
    scales: gradients of so many copies of the image, each half as bright as the one before (SI, Lin et al. 2020,
        arXiv:1908.06281). nesterov: taken one step ahead along the momentum (NI, the same paper).
    variance: so many neighbours within ``radius`` * eps tell how far the gradient changes nearby; the next step
        corrects its own by that (VMI-FGSM, Wang & He 2021, arXiv:2103.15571); 0: none.

    A step costs scales + variance gradients. Success is checked where the image itself is shown, and at the end.
    """

    title = "Transferable FGSM"
    source = "Dong et al. 2018, arXiv:1710.06081; Xie et al. 2019, arXiv:1803.06978; Dong et al. 2019, arXiv:1904.02884"

    def __init__(
        self,
        steps: int = 20,
        step: float | None = None,
        decay: float = 1.0,
        diversity: float = 0.1,
        probability: float = 0.2,
        translation: int = 2,
        sharpness: float = 0.8,
        scales: int = 1,
        nesterov: bool = False,
        variance: int = 0,
        radius: float = 1.5,
    ) -> None:
        super().__init__(steps, 4 / max(steps, 4) if step is None else step, decay)
        if not (0 <= diversity < 1 and 0 <= probability <= 1 and 0 <= sharpness <= 1 and radius >= 0):
            raise InputError(
                "diversity, probability and sharpness are shares and radius is not negative, got "
                f"{diversity}, {probability}, {sharpness} and {radius}"
            )
        if translation < 0 or variance < 0 or scales < 1:
            raise InputError(
                "translation and variance are not negative and scales is at least 1, got "
                f"{translation}, {variance} and {scales}"
            )
        self.diversity, self.probability = diversity, probability
        self.translation, self.sharpness, self.scales = translation, sharpness, scales
        self.nesterov, self.variance, self.radius = nesterov, variance, radius

    def start(self, batch: Batch) -> tuple[Images, State]:
        images, state = super().start(batch)
        return images, state | {"variance": torch.zeros_like(images)}

    def evaluate(self, classifier: Classifier, images: Images, batch: Batch, state: State) -> ModelOutput:
        keys = [f"{key}@{step}" for key, step in zip(batch.keys(), batch.index.tolist(), strict=True)]
        at = images
        if self.nesterov:
            ahead = self.decay * self.length(batch.ball) * batch.ball.eps
            at = images + ahead * batch.ball.ascent(state["momentum"])
        leaf = at.detach().requires_grad_()
        with torch.enable_grad():
            copies = [self._placed(leaf, batch.seed, k, keys) / 2**k for k in range(self.scales)]
        backs = [slope(classifier, copy, batch.goal, self.loss) for copy in copies]
        pulls = [back.gradient * back.scale.float().view(WIDE) / self.scales for back in backs]
        (gradient,) = torch.autograd.grad(copies, leaf, pulls)
        followed = gradient + state["variance"]
        if self.variance:
            state["variance"] = self._around(classifier, at, batch, keys) - gradient
        first = backs[0]
        output = grade(
            classifier,
            images,
            first.logits,
            batch.goal,
            first.loss.float(),
            smoothed(followed, self.translation, self.sharpness),
        )
        itself = (copies[0] == images).flatten(1).all(1)
        return replace(
            output,
            reached=output.reached & itself,
            margin=output.margin.where(itself, -torch.inf),
            queries=torch.full_like(batch.index, self.scales + self.variance),
        )

    def _placed(self, images: Images, seed: int, copy: int, keys: Sequence[seeds.Id]) -> Images:
        """Each row, with ``probability``, shrunk and put at a random place on black."""
        if not self.diversity or not self.probability:
            return images * 1.0
        draw = (seeds.uniform(seed, f"transferable/place {copy}", keys, (4,)).to(images.device) + 1) / 2
        side = 1 - self.diversity * draw[:, :1]
        shift = (2 * draw[:, 1:3] - 1) * (1 - side)
        axes = [torch.arange(1 - n, n, 2, device=images.device) / n for n in images.shape[:1:-1]]
        across, down = ((axis - shift[:, i : i + 1]) / side for i, axis in enumerate(axes))
        grid = torch.stack(
            [across[:, None, :].expand(-1, len(axes[1]), -1), down[:, :, None].expand(-1, -1, len(axes[0]))], -1
        )
        placed = F.grid_sample(images, grid, align_corners=False)
        return torch.where((draw[:, 3] < self.probability).view(WIDE), placed, images)

    def _around(self, classifier: Classifier, images: Images, batch: Batch, keys: Sequence[seeds.Id]) -> Images:
        """The mean gradient of the neighbours."""
        total = torch.zeros_like(images)
        for k in range(self.variance):
            noise = batch.ball.draw(batch.seed, f"transferable/neighbour {k}", keys, images.shape[1:]).to(images.device)
            back = slope(classifier, images + self.radius * batch.ball.eps * noise, batch.goal, self.loss)
            total = total + back.gradient * back.scale.float().view(WIDE)
        return total / self.variance


def smoothed(gradient: Images, half: int, sharpness: float) -> Images:
    """The gradient under a Gaussian of sigma half / 2, cut at ``half`` pixels, and ``sharpness`` of it as it was.

    Both with the mean size of 1 before they are weighed. Shifted sums, for a row's bits must not depend on the others.
    """
    if not half:
        return gradient
    soft = gradient
    for axis in (2, 3):
        padded = F.pad(soft, (half, half, 0, 0) if axis == 3 else (0, 0, half, half))
        taps = [math.exp(-2 * (k / half) ** 2) for k in range(-half, half + 1)]
        soft = sum((w * padded.narrow(axis, i, soft.shape[axis]) for i, w in enumerate(taps)), torch.zeros_like(soft))
    return (1 - sharpness) * _unit(soft) + sharpness * _unit(gradient)


def _unit(gradient: Images) -> Images:
    size: Tensor = gradient.flatten(1).abs().mean(1).view(WIDE)
    return gradient / torch.where(size > 0, size, torch.ones_like(size))
