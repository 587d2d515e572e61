"""The images, the goal and the ball of one call, and the only way to the classifier: everything is counted."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from medrobust import seeds
from medrobust.classifier import Classifier, pad
from medrobust.errors import InputError
from medrobust.images import Images, Lazy, Logits, PerImage, check_images
from medrobust.threat import Ball, Goal, Targeted, Untargeted
from medrobust.universal.checkpoint import Checkpoint, Stand

UniversalLoss = Callable[[Goal, Classifier, Logits], PerImage]
"""(n,) to be ascended, of the rows' goal and their logits (float64 when a gradient is taken)."""

Advance = Callable[[int], None]
"""Called with the number of images looked at since the last call."""

Watch = Callable[[float], None]
"""Called with the share of images that reach the goal, as far as is known on the way."""

RECENT = 32
"""Images over which the share is averaged on the way."""


class UniversalTask:
    """The images, the goal and the ball of one call, and the only way to the classifier: everything is counted.

    folded: ask the copy with BatchNorm folded (``Classifier.fast``: the same answers up to rounding, in less time);
    what comes of it is judged by the network itself.

    n: number of images. shape: (c, h, w). device: where the classifier computes; all tensors given here lie there.
    queries: forward passes of one image each, in all; gradients: those of them that were followed by a backward pass.
    """

    def __init__(
        self,
        classifier: Classifier,
        images: Images | Lazy,
        goal: Goal,
        ball: Ball,
        advance: Advance | None,
        *,
        watch: Watch | None = None,
        folded: bool = False,
    ) -> None:
        self.classifier, self.goal, self.ball = classifier, goal, ball
        self.n = len(images)
        if not self.n:
            raise InputError("a universal perturbation is made from at least one image, got none")
        self._images = check_images(images) if isinstance(images, Tensor) else images
        _, c, h, w = self._read([0]).shape
        self.shape: tuple[int, int, int] = (c, h, w)
        if folded and (classifier.size in (None, h) or classifier.preprocessing is not None):
            self.classifier = classifier.fast((1, *self.shape))
        self.device = classifier.device
        self.queries = 0
        self.gradients = 0
        self.advanced = 0
        self._slope = torch.zeros((), dtype=torch.bool, device=self.device)
        self._advance = advance or (lambda _: None)
        self._watch, self._recent = watch, 0.0
        self.checkpoint: Checkpoint | None = None
        self._aims = self._find_aims()

    @property
    def batch_size(self) -> int:
        """Rows of a full batch."""
        return self.classifier.batch_size((1, *self.shape))

    def take(self, index: Sequence[int] | np.ndarray) -> Images:
        """The images at these positions."""
        return self._read(index).to(self.device)

    def aim(self, index: Sequence[int] | np.ndarray) -> Goal:
        """The goal of these images: away from the clean prediction (never the label), or to the target."""
        return self._aims.take(torch.as_tensor(np.asarray(index, dtype=np.int64), device=self.device))

    def aimed(self, target: int, n: int) -> Goal:
        """The goal of n images that are to go to that class."""
        return Targeted(target).prepare(self.classifier.head, len(self.classifier.classes), n, self.device)

    def order(self, seed: int, number: int) -> np.ndarray:
        """A random order of all images: one a pass."""
        return seeds.generator(seed, "universal/order", number).permutation(self.n)

    def chunks(self, order: np.ndarray, size: int) -> Iterator[np.ndarray]:
        """``order`` in pieces of ``size``, the last one may be shorter."""
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def zero(self) -> Tensor:
        """A perturbation (c, h, w) of nothing."""
        return torch.zeros(self.shape, device=self.device)

    def project(self, delta: Tensor) -> Tensor:
        """The nearest perturbation (c, h, w) in the ball."""
        return self.ball.project(delta[None])[0]

    def step(self, delta: Tensor, length: float, direction: Tensor) -> Tensor:
        """``delta`` moved by length x eps along the steepest direction of the ball's norm, and projected."""
        return self.project(delta + length * float(self.ball.eps) * self.ball.ascent(direction[None])[0])

    def show(self, images: Images, delta: Tensor) -> Images:
        """``images`` with the perturbation, as they could be stored: clipped to [0, 1], padding as it was."""
        return self.classifier.confined(images, (images + delta).clamp(0, 1))

    @torch.no_grad()
    def logits(self, images: Images) -> Logits:
        """Logits (n, k) of images on ``device``; each row counts as one query."""
        self.count(queries=images.shape[0])
        parts = []
        for chunk in images.split(self.batch_size):
            padded = pad(chunk, self.classifier.fit(chunk.shape[0], images.shape))
            parts.append(self.classifier(padded)[: chunk.shape[0]])
        return torch.cat(parts)

    def reached(self, goal: Goal, logits: Logits) -> Tensor:
        """bool (n,): the goal is reached; logits that are not finite decide nothing."""
        return goal.reached(self.classifier.head, logits) & torch.isfinite(logits).all(1)

    def rate(self, delta: Tensor, *, clip: bool = True) -> float:
        """Share of all images at which the goal is reached under ``delta``: n queries."""
        return self._share(reached for _, reached in self._looks(delta, clip))

    def moves(self, delta: Tensor) -> tuple[float, int | None]:
        """``rate``, and the class to which most of the images that left theirs went, of the classes that held at most
        half of them: n queries. None where there is no such class, where decisions are sets of findings, or with a
        target.
        """
        own = self._aims.labels
        if not isinstance(self._aims, Untargeted) or own is None or own.ndim > 1:
            return self.rate(delta), None
        looks = [(self.classifier.head.decide(logits), reached) for logits, reached in self._looks(delta)]
        after, left = (torch.cat(part) for part in zip(*looks, strict=True))
        k = len(self.classifier.classes)
        came = torch.bincount(after[left], minlength=k)
        came[torch.bincount(own, minlength=k) > self.n / 2] = 0
        return self._share([left]), int(came.argmax()) if bool(came.any()) else None

    def _looks(self, delta: Tensor, clip: bool = True) -> Iterator[tuple[Logits, Tensor]]:
        """For all images in their order, a batch at a time: logits under ``delta``, and where the goal is reached."""
        for index in self.chunks(np.arange(self.n), self.batch_size):
            images = self.take(index)
            logits = self.logits(self.show(images, delta) if clip else images + delta)
            yield logits, self.reached(self.aim(index), logits)

    def _share(self, reached: Iterable[Tensor]) -> float:
        """Fooling rate on all images; it is also reported to ``watch``."""
        hits = torch.zeros((), device=self.device)
        for part in reached:
            hits += part.sum()
        self.tell(float(hits) / self.n)
        return float(hits) / self.n

    def gradient(
        self, index: np.ndarray, delta: Tensor, loss: UniversalLoss, *, clip: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Gradient (c, h, w) of the loss, summed over these images, with respect to the shared ``delta``; and the
        number of them at which the goal is reached.

        Where an image is black (or white) already and its gradient points out of what files can hold, it contributes
        nothing: the pixel can not follow. clip=False is the published code's way, which shows the network pixels beyond
        0 and 1.
        """
        total = self.zero()
        hits = torch.zeros((), device=self.device)
        for part in self.chunks(index, self.batch_size):
            goal, images = self.aim(part), self.take(part)
            raw = images + delta
            perturbed = self.show(images, delta) if clip else raw
            slope, logits = self.slopes(perturbed, goal, loss)
            if clip:
                slope = slope.masked_fill(self.classifier.attackable.outward(raw, slope), 0.0)
            total += slope.sum(0)
            hits += self.reached(goal, logits).sum()
        if self._watch is not None:  # only then: on a GPU every look at a number waits for all work before it
            recent = (1 - 1 / RECENT) ** len(index)
            self.tell(recent * self._recent + (1 - recent) * float(hits) / len(index))
        return total, hits

    def slopes(self, images: Images, goal: Goal, loss: UniversalLoss) -> tuple[Images, Logits]:
        """Gradient of the loss for each image (n, c, h, w), 0 where it is not finite; and the logits."""
        n = images.shape[0]
        self.count(queries=n, gradients=n)
        leaf = images.detach().requires_grad_()
        with torch.enable_grad():
            logits = self.classifier(leaf)
            outputs = logits.detach().double().requires_grad_()
            (pull,) = torch.autograd.grad(loss(goal, self.classifier, outputs).sum(), outputs)
            pull = pull.nan_to_num(0.0, 0.0, 0.0).to(logits.dtype)
            back = torch.autograd.grad(logits, leaf, pull, allow_unused=True)[0] if logits.requires_grad else None
        slope = torch.zeros_like(images) if back is None else back.detach().nan_to_num(0.0, 0.0, 0.0)
        self._slope |= slope.any()
        return slope, logits.detach()

    def feature_slopes(
        self, images: Images, layers: Sequence[nn.Module], objective: Callable[[list[Tensor]], Tensor]
    ) -> tuple[Images, Logits]:
        """As ``slopes``, of a number: ``objective`` of the outputs of ``layers`` for these images, or of the logits
        where there are no layers."""
        n = images.shape[0]
        self.count(queries=n, gradients=n)
        outputs: list[Tensor] = []
        # copies: an activation behind the layer may work in its memory
        hooks = [layer.register_forward_hook(lambda _, __, out: outputs.append(out.clone())) for layer in layers]
        leaf = images.detach().requires_grad_()
        try:
            with torch.enable_grad():
                logits = self.classifier(leaf)
                value = objective(outputs or [logits])
                back = torch.autograd.grad(value, leaf, allow_unused=True)[0] if value.requires_grad else None
        finally:
            for hook in hooks:
                hook.remove()
        slope = torch.zeros_like(images) if back is None else back.detach().nan_to_num(0.0, 0.0, 0.0)
        self._slope |= slope.any()
        return slope, logits.detach()

    def keep(self, part: str, tensors: dict[str, Tensor], history: list[dict[str, float]]) -> None:
        """Keep where that part of the making stands after a pass, if a checkpoint was asked for."""
        if self.checkpoint is not None:
            counted = {"queries": self.queries, "gradients": self.gradients, "slope": int(self._slope)}
            self.checkpoint.keep(part, Stand(tensors, list(history), counted))

    def resume(self, part: str) -> tuple[dict[str, Tensor], list[dict[str, float]]] | None:
        """The last state that ``keep`` stored for that part, with the counts until then; None where there is none."""
        stand = None if self.checkpoint is None else self.checkpoint.stands.get(part)
        if stand is None:
            return None
        counted = stand.counted
        self.count(counted["queries"] - self.queries, counted["gradients"] - self.gradients)
        self._slope |= bool(counted["slope"])
        self.tell(stand.history[-1]["rate"])
        return {name: value.to(self.device) for name, value in stand.tensors.items()}, list(stand.history)

    def fingerprint(self) -> str:
        """Digest of the images and the goal: sha256 over their number, sixteen spread over all of them, and the
        aims."""
        digest = hashlib.sha256(repr((self.n, self.shape, type(self._aims).__name__)).encode())
        some = sorted({i * (self.n - 1) // 15 for i in range(16)})
        for tensor in (*(self._read([i]) for i in some), self._aims.labels):
            if tensor is not None:
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def tell(self, rate: float) -> None:
        """Share of images that reach the goal now, for whoever watches."""
        self._recent = rate
        if self._watch is not None:
            self._watch(rate)

    @property
    def class_counts(self) -> list[int] | None:
        """How many images are predicted as each class without a perturbation; nontargeted only.

        None where decisions are sets of findings, or there is a target.
        """
        labels = self._aims.labels
        if not isinstance(self._aims, Untargeted) or labels is None or labels.ndim > 1:
            return None
        return torch.bincount(labels, minlength=len(self.classifier.classes)).tolist()

    def gathered(self, delta: Tensor) -> tuple[int, float]:
        """The class that most images are in under ``delta``, and the share of the images predicted as another class
        without it that are there now, 0 if there are none: n queries. Only where there are ``class_counts``."""
        own = self._aims.labels
        assert own is not None
        after = torch.cat([self.classifier.head.decide(logits) for logits, _ in self._looks(delta)])
        most = int(torch.bincount(after, minlength=len(self.classifier.classes)).argmax())
        came = after[own != most] == most
        return most, float(came.double().mean()) if len(came) else 0.0

    @contextlib.contextmanager
    def toward(self, target: int) -> Iterator[None]:
        """Inside the context the goal is that class for every image."""
        aims = self._aims
        self._aims = self.aimed(target, self.n)
        try:
            yield
        finally:
            self._aims = aims

    def why_still(self, delta: Tensor, history: list[dict[str, float]]) -> str:
        """Why a perturbation stayed zero, or does nothing to the very images it was made from; empty where it does."""
        if not bool(delta.any()):
            return self.why_zero(history)
        # a method that has no gradient has no queries to spare either: it looked as often as it could
        if not history or history[-1]["rate"] > 0.5 or not self.gradients:
            return ""
        rate = history[-1]["rate"]
        before = self.rate(self.zero()) if rate and isinstance(self.goal, Targeted) else 0.0
        if rate > before:
            return ""
        size = float(self.ball.size(delta[None])) / float(self.ball.eps)
        return (
            f"a perturbation of {size:.0%} of the size allowed was made, and the goal is reached at {rate:.1%} of the "
            f"{self.n} images it was made from, {before:.1%} before: it never left the start; this says nothing about "
            "robustness; give more passes, a larger size, or images that are more like those it is for"
        )

    def why_zero(self, history: list[dict[str, float]]) -> str:
        """Why a perturbation stayed zero."""
        if float(self.ball.eps) == 0:
            return "eps is 0, so nothing may change"
        if history and history[-1]["rate"] == 1:
            return "every image reached the goal already, so nothing was to be done"
        if self.gradients and not bool(self._slope):
            return (
                "the gradient was zero for every image, so the perturbation stayed zero: this says nothing about "
                "robustness; try a method that needs no gradient"
            )
        return (
            "the steps of single images cancelled out, so the perturbation stayed zero: this says nothing about "
            "robustness; try another method, or more passes"
        )

    def count(self, queries: int, gradients: int = 0) -> None:
        """Count looks at the classifier, and tell the progress bar."""
        self.queries += queries
        self.gradients += gradients
        self.advanced += queries
        self._advance(queries)

    def _read(self, index: Sequence[int] | np.ndarray) -> Images:
        if isinstance(self._images, Tensor):
            return self._images[torch.as_tensor(np.asarray(index, dtype=np.int64), device=self._images.device)]
        return check_images(self._images.images(index))

    def _find_aims(self) -> Goal:
        head, classes = self.classifier.head, len(self.classifier.classes)
        if isinstance(self.goal, Targeted):
            if self.goal.labels.ndim:
                raise InputError("a universal perturbation has one target for all images: Targeted(class index)")
            return self.goal.prepare(head, classes, self.n, self.device)
        if self.goal.labels is not None:
            raise InputError(
                "a universal perturbation is to change the clean prediction, whatever the label: give Untargeted()"
            )
        parts = [head.decide(self.logits(self.take(i))) for i in self.chunks(np.arange(self.n), self.batch_size)]
        return Untargeted(torch.cat(parts)).prepare(head, classes, self.n, self.device)
