"""Base of the minibatch gradient methods. Where a nontargeted climb gets stuck, the rarest class becomes a target."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from torch import Tensor

from medrobust.threat import Untargeted
from medrobust.universal.balance import Balanced, balanced
from medrobust.universal.method import PerturbationResult, UniversalMethod
from medrobust.universal.task import UniversalLoss, UniversalTask

MethodState = dict[str, Tensor]
"""The state that a pass hands to the next, by name; "delta" (c, h, w) is the perturbation."""

PREFERENCE = 0.05
"""By how much of Rf, on the images it was made from, a climb must beat a pile. It has more ways to fit those images: on
seven skin classes, Linf, both reached 98 % of them, and then 82 % (climb) and 95 % (pile) of held-out images."""


class MinibatchMethod(UniversalMethod):
    """Passes over the images in minibatches. A method says what it ascends (``loss``), what a pass hands to the next
    (``start``) and what a pass does (``sweep``).

    Nontargeted, sending all images into their rarest class fools every image that was not there
    (``UniversalTask.rarest_class``). Where the climb ends below that, as it does on a linear network whose classes pull
    against each other, a second climb goes for that class, and is returned unless the first is better on these images
    by more than ``PREFERENCE``.
    Without ``balance``, as published, there is neither a weight of classes nor a second climb.

    A climb stops where all of its images are fooled, often well inside the ball, and few images are soon fooled all.
    ``stretch`` scales what it ends at to the edge: images that were not seen need the longer way (most of all where it
    was made from few; figures: docs/results/universal.md).
    """

    passes: int
    balance: bool
    stretch: bool
    repeats: int = 1

    @abstractmethod
    def loss(self) -> UniversalLoss:
        """The loss to be ascended."""

    def start(self, task: UniversalTask) -> MethodState:
        """The state before the first pass."""
        return {"delta": task.zero()}

    @abstractmethod
    def sweep(
        self, task: UniversalTask, state: MethodState, loss: UniversalLoss, number: int, order: np.ndarray
    ) -> Tensor:
        """Pass ``number`` over the images in that order: changes ``state``; how often a goal was reached."""

    def work(self, n: int) -> int:
        # the clean predictions, two climbs, the rates of both, and that of no change at all
        return n * (2 * self.passes * self.repeats + 4)

    def climb(self, task: UniversalTask, seed: int, part: str = "climb") -> PerturbationResult:
        """The perturbation at the end of all passes, one history entry a pass. part: its name in a checkpoint."""
        loss = balanced(self.loss(), task, self.balance)
        history: list[dict[str, float]] = []
        state = self.start(task)
        if kept := task.resume(part):
            state, history = kept
            if isinstance(loss, Balanced):
                loss.unfooled = state["unfooled"]
        for number in range(len(history), self.passes):
            if history and history[-1]["rate"] == 1:
                break
            hits = self.sweep(task, state, loss, number, task.order(seed, number))
            history.append({"pass": number + 1, "rate": float(hits) / (task.n * self.repeats)})
            if isinstance(loss, Balanced):
                state["unfooled"] = loss.unfooled
            task.keep(part, state, history)
        return PerturbationResult(self._at_end(task, state["delta"]), history)

    def _at_end(self, task: UniversalTask, delta: Tensor) -> Tensor:
        """``delta``, or as much of it as the ball holds; 0 stays 0."""
        if not self.stretch:
            return delta
        return task.project(float(task.ball.eps) * task.ball.at_edge(delta[None])[0])

    def find(self, task: UniversalTask, seed: int) -> PerturbationResult:
        perturbation = self.climb(task, seed)
        # a pass counts what each image met when its turn came; of the end, what counts is what all of them meet
        rate = task.rate(perturbation.delta)
        ended = PerturbationResult(
            perturbation.delta, [*perturbation.history[:-1], perturbation.history[-1] | {"rate": rate}]
        )
        rarest_class = task.rarest_class() if isinstance(task.goal, Untargeted) else None
        if rarest_class is None or not self.balance:
            return ended
        target, share = rarest_class
        if rate >= share:
            return ended
        with task.toward(target):
            one_class = self.climb(task, seed, "rarest_class")
        other = task.rate(one_class.delta)
        if other < rate - PREFERENCE or not one_class.delta.any():
            return ended
        entry = {"pass": len(perturbation.history) + len(one_class.history), "rate": other, "toward": float(target)}
        return PerturbationResult(one_class.delta, [*perturbation.history, entry])
