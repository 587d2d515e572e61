"""Perturbations that raise a network's features, whatever the image: GD-UAP, TRM-UAP and PSP-UAP.

They need no images of the task: made from noise (``Noise``), they are data-free.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medrobust import seeds
from medrobust.errors import InputError
from medrobust.images import Images
from medrobust.layer_probe import readable
from medrobust.threat import Targeted
from medrobust.universal.method import PerturbationResult
from medrobust.universal.minibatch import MinibatchStep
from medrobust.universal.sgd import SGDUAP
from medrobust.universal.task import UniversalLoss, UniversalTask

FAINT = 1e-9
"""Added to a sum of squares before its logarithm, as in the authors' code."""


class GDUAP(SGDUAP):
    """Ascends the sum over the layers of log (||positive part||^2 / 2): the product of the norms of all activations.

    Layers are the convolutions, with the BatchNorm behind them; of a network with fewer than two of them the linear
    layers as well, and the logits of one without either. The steps are those of ``SGDUAP``, in place of the paper's
    Adam and its halving of saturated perturbations. Nontargeted only.
    """

    title = "GD-UAP"
    source = "Mopuri et al. 2018, arXiv:1801.08092"
    depth = 1.0
    negative = 0.0

    def __init__(self, passes: int = 10, batch: int = 10, step: float = 0.1, momentum: float = 0.9) -> None:
        super().__init__(passes, batch, step, momentum=momentum, balance=False)

    def find(self, task: UniversalTask, seed: int) -> PerturbationResult:
        if isinstance(task.goal, Targeted):
            raise InputError(f"{self.title} raises features and has no target: leave the target out, or use sgd")
        return super().find(task, seed)

    def why_nothing(self, task: UniversalTask, delta: Tensor, history: list[dict[str, float]]) -> str:
        # the share of noise that is decided otherwise says nothing of images
        return "" if bool(delta.any()) else task.why_zero(history)

    def gradient(
        self,
        task: UniversalTask,
        step: MinibatchStep,
        delta: Tensor,
        loss: UniversalLoss,  # noqa: ARG002 (of logits)
    ) -> tuple[Tensor, Tensor]:
        total, hits = task.zero(), torch.zeros((), device=task.device)
        layers = self.layers(task)
        for index in task.chunks(step.images, task.batch_size):
            images, weight = self.prior(task, step, index, delta)
            raw = images + delta
            slope, logits = task.feature_slopes(
                task.show(images, delta), layers, functools.partial(self.objective, weight=weight)
            )
            total += slope.masked_fill(task.classifier.attackable.outward(raw, slope), 0.0).sum(0)
            hits += task.reached(task.aim(index), logits).sum()
        return total, hits

    def layers(self, task: UniversalTask) -> Sequence[nn.Module]:
        """Those whose features are raised: the first ``depth`` of them."""
        modules = list(readable(task.classifier).values())
        found: list[nn.Module] = [m for m in modules if isinstance(m, nn.Conv2d)]
        if len(found) < 2:
            found = [m for m in modules if isinstance(m, (nn.Conv2d, nn.Linear))]
        return found[: max(1, int(self.depth * len(found)))]

    def prior(
        self,
        task: UniversalTask,
        step: MinibatchStep,  # noqa: ARG002
        index: np.ndarray,
        delta: Tensor,  # noqa: ARG002
    ) -> tuple[Images, Tensor | None]:
        """The images to which ``delta`` is added, and their weights (m,); None: equal ones."""
        return task.take(index), None

    def objective(self, outputs: list[Tensor], weight: Tensor | None) -> Tensor:
        """To be ascended."""
        return torch.stack([self._size(out, weight) for out in outputs]).sum()

    @staticmethod
    def _size(out: Tensor, weight: Tensor | None) -> Tensor:
        """Logarithm of half the weighted sum of the squares of the positive entries."""
        squares = out.double().relu().square().flatten(1).sum(1)
        return ((squares if weight is None else squares * weight.square()).sum() / 2 + FAINT).log()


class TRMUAP(GDUAP):
    """Truncated ratio maximisation: positive outputs are raised and negative ones lowered, in the first layers only.

    Ascends the sum over the layers of log (||positive part||^2 / 2) - ``negative`` / 2 * log (||negative part||^2 / 2):
    the ratio in the form of the authors' code (which takes the positive part in both terms). depth: share of the
    layers, from the image on. The paper's curriculum, noise that grows stronger, is not made.
    """

    title = "TRM-UAP"
    source = "Liu et al. 2023, TRM-UAP, ICCV 2023"

    def __init__(
        self,
        passes: int = 10,
        batch: int = 10,
        step: float = 0.1,
        momentum: float = 0.9,
        depth: float = 0.65,
        negative: float = 1.0,
    ) -> None:
        super().__init__(passes, batch, step, momentum)
        if not 0 < depth <= 1 or not negative >= 0:
            raise InputError(f"depth lies in (0, 1] and negative is not below 0, got {depth} and {negative}")
        self.depth, self.negative = depth, negative

    def objective(self, outputs: list[Tensor], weight: Tensor | None) -> Tensor:
        raised = super().objective(outputs, weight)
        return raised - self.negative / 2 * super().objective([-out for out in outputs], weight)


class PSPUAP(TRMUAP):
    """TRM-UAP on what the perturbation itself shows: random crops of an image with ``delta``, enlarged, take its place.

    A crop has ``crop`` to all of the area. Each is weighed by the root of 1 / KL(answer to it || answer with ``delta``)
    at a temperature: those that are not fooled yet count most. The paper also rotates, scales and shuffles the crops,
    which is not made here.
    """

    title = "PSP-UAP"
    source = "Lee et al. 2025, PSP-UAP, arXiv:2502.21048"

    def __init__(
        self,
        passes: int = 10,
        batch: int = 10,
        step: float = 0.1,
        momentum: float = 0.9,
        depth: float = 1.0,
        negative: float = 0.0,
        crop: float = 0.08,
        temperature: float = 5.0,
    ) -> None:
        super().__init__(passes, batch, step, momentum, depth, negative)
        if not 0 < crop <= 1 or not temperature > 0:
            raise InputError(f"crop lies in (0, 1] and temperature is positive, got {crop} and {temperature}")
        self.crop, self.temperature = crop, temperature

    def prior(
        self, task: UniversalTask, step: MinibatchStep, index: np.ndarray, delta: Tensor
    ) -> tuple[Images, Tensor | None]:
        whole = task.show(task.take(index), delta).split(1)
        made = torch.cat([self._crop(image, step, int(i)) for image, i in zip(whole, index, strict=True)])
        before, after = (
            F.log_softmax(task.logits(shown).double() / self.temperature, 1) for shown in (made, task.show(made, delta))
        )
        apart = F.kl_div(after, before, reduction="none", log_target=True).sum(1) * self.temperature**2
        weight = apart.clamp_min(FAINT).rsqrt()
        return made, weight / weight.max()

    def work(self, n: int) -> int:
        return super().work(n) + 2 * n * self.passes  # the answers to the crops, without and with the perturbation

    def _crop(self, image: Images, step: MinibatchStep, place: int) -> Images:
        """A random part of one image (1, c, h, w), enlarged to its size."""
        draw = seeds.generator(step.seed, "universal/crop", step.number, place)
        h, w = image.shape[2:]
        area, ratio = draw.uniform(self.crop, 1), draw.uniform(3 / 4, 4 / 3)
        high, wide = (min(n, max(1, round(n * (area * r) ** 0.5))) for n, r in ((h, 1 / ratio), (w, ratio)))
        top, left = int(draw.integers(h - high + 1)), int(draw.integers(w - wide + 1))
        return F.interpolate(image[..., top : top + high, left : left + wide], (h, w), mode="bilinear")
