"""The interface of methods for universal perturbations: hyper-parameters in ``__init__``, data in ``__call__``."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from medrobust import code_digest
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, Lazy
from medrobust.threat import Ball, Goal
from medrobust.universal.checkpoint import Checkpoint
from medrobust.universal.perturbation import Universal
from medrobust.universal.task import Advance, UniversalTask, Watch


@dataclass(frozen=True)
class PerturbationResult:
    """The result of a method: the perturbation (c, h, w), its history, and the reason of a failure if there was one."""

    delta: Tensor
    history: list[dict[str, float]] = field(default_factory=list)
    why: str = ""


class UniversalMethod(ABC):
    """A way to make a universal perturbation.

    A method of your own states ``title`` and ``source`` and implements ``find``; it asks the classifier only through
    the ``UniversalTask``, which counts.
    """

    title: ClassVar[str]
    source: ClassVar[str]
    opens: ClassVar[bool] = True
    """The network may be looked into: gradients are taken, on a copy that is faster to compute."""

    @abstractmethod
    def find(self, task: UniversalTask, seed: int) -> PerturbationResult:
        """The perturbation for this task. All randomness is keyed by ``seed`` (see medrobust.seeds)."""

    def work(self, n: int) -> int:
        """How many images will be looked at for n images, at most: what a progress bar ends at."""
        return n

    def check(self, n: int) -> None:  # noqa: B027 - most methods take any number of images
        """InputError, before the classifier is asked anything, where n images are too many for this method."""

    def why_nothing(self, task: UniversalTask, delta: Tensor, history: list[dict[str, float]]) -> str:
        """Why a perturbation does nothing to the images that it was made from; empty where it does."""
        return task.why_still(delta, history)

    @property
    def settings(self) -> dict[str, object]:
        """Everything that a result depends on, for specs and reports."""
        return {k: v for k, v in sorted(vars(self).items()) if not callable(v)}

    def __call__(
        self,
        classifier: Classifier,
        images: Images | Lazy,
        goal: Goal,
        ball: Ball,
        *,
        seed: int = 0,
        advance: Advance | None = None,
        watch: Watch | None = None,
        checkpoint: str | Path | None = None,
    ) -> Universal:
        """One perturbation (c, h, w) for all images, inside ``ball``.

        images: (n, c, h, w) in [0, 1], or anything lazy with ``len`` and ``images(indices)`` such as a Dataset: the
            result is the same to the bit. No labels are needed.
        goal: ``Untargeted()``, away from each image's clean prediction, or ``Targeted(k)``.
        advance: called with the number of images looked at; ``work(n)`` of them in all.
        watch: called now and then with the share of images that reach the goal at that moment.
        checkpoint: a file that keeps where the making stands after each pass (each look at all images, 16 patterns of
            U-SimBA); the same call with the same file goes on from there, to the same bytes. It stays until you remove
            it, best once what was made is safe. A file about another making is replaced.
        """
        if isinstance(ball.eps, Tensor):
            raise InputError("a universal perturbation has one size: give the ball one eps, not one an image")
        self.check(len(images))
        with contextlib.ExitStack() as stack:
            stack.enter_context(classifier.borrowed())
            task = UniversalTask(classifier, images, goal, ball, advance, watch=watch, folded=self.opens)
            stack.enter_context(task.classifier.borrowed())
            if checkpoint is not None:
                config = [
                    code_digest.of_module(__name__),
                    code_digest.described(self),
                    classifier.digest(),
                    repr(ball),
                    task.fingerprint(),
                    seed,
                ]
                task.checkpoint = Checkpoint(checkpoint, json.dumps(config))
            perturbation = self.find(task, seed)
            delta = task.project(perturbation.delta.detach().float())
            why = perturbation.why or self.why_nothing(task, delta, perturbation.history)
        if advance is not None and self.work(task.n) > task.advanced:
            advance(self.work(task.n) - task.advanced)
        provenance = {
            "method": self.title,
            "source": self.source,
            "settings": self.settings,
            "images": {
                "name": "tensor" if isinstance(images, Tensor) else str(getattr(images, "name", type(images).__name__)),
                "n": task.n,
            },
            "classifier": classifier.digest(),
            "seed": seed,
            "queries": task.queries,
            "gradients": task.gradients,
        }
        return Universal(delta, ball, goal, provenance, perturbation.history, why)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.settings.items())})"
