"""Base of the minibatch gradient methods: first all images into one class, then, where that is done, beyond it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from medrobust.universal.balance import Balanced
from medrobust.universal.losses import Hinge
from medrobust.universal.method import PerturbationResult, UniversalMethod
from medrobust.universal.schedule import cosine
from medrobust.universal.task import UniversalLoss, UniversalTask

MethodState = dict[str, Tensor]
"""The state that a pass hands to the next, by name; "delta" (c, h, w) is the perturbation."""

PREFERENCE = 0.05
"""By how much of Rf, on the images it was made from, a later perturbation must be better. The balanced climb has
more ways to fit those images: on seven skin classes, Linf, both reached 98 % of them, and then 82 % (balanced) and
95 % (one class) of held-out images."""

COMPLETE = 0.9
"""Share of the images outside a class that were sent into it, from which on little is left to gain in that class."""

LITTLE = 0.25
"""Of two classes: what is left to gain in the larger one, next to what the rarer one might give, from which down a
climb towards the rarer one is tried."""

KAPPA = 2.0
"""In the balanced climb an image that reaches the goal by so many logits contributes no gradient."""


class MinibatchStep(NamedTuple):
    """number: over all passes, from 0. images: their positions. shrink: length as a share of the first step's."""

    number: int
    images: np.ndarray
    shrink: float
    seed: int


@dataclass(frozen=True)
class Pass:
    """Pass ``number`` of ``total`` over the images, in this order."""

    number: int
    total: int
    order: np.ndarray
    seed: int

    def steps(self, batch: int) -> Iterator[MinibatchStep]:
        """Its steps, ``batch`` images each; the last one may have fewer."""
        each = math.ceil(len(self.order) / batch)
        for i in range(each):
            number = self.number * each + i
            images = self.order[i * batch : (i + 1) * batch]
            yield MinibatchStep(number, images, cosine(number, self.total * each), self.seed)


class MinibatchMethod(UniversalMethod):
    """Passes over the images in minibatches. A method says what it ascends (``loss``), what a pass hands to the next
    (``start``) and what a pass does (``sweep``).

    Nontargeted, a climb soon sends all images into one class, the one that is nearest to most of them. Where half of
    the passes have sent nearly all images there (``COMPLETE``), little is left to gain that way. The other half then
    makes other perturbations: towards the rarer of two classes, if the first one sent all into the larger one (or so
    many that the rest is little beside what the rarer class may give, ``LITTLE``); and with the weight on classes that
    are not fooled yet (``Balanced``), which can turn images of every class. One of them is returned where it is better
    on these images by more than ``PREFERENCE``. ``passes`` bounds the gradients of all.
    Without ``balance``, as published, there is one climb.

    ``stretch`` scales what a climb ends at to the edge of the ball: images that were not seen need the longer way.
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
    def sweep(self, task: UniversalTask, state: MethodState, loss: UniversalLoss, turn: Pass) -> Tensor:
        """One pass over the images: changes ``state``; how often a goal was reached."""

    def work(self, n: int) -> int:
        # the clean predictions, the passes, the rates of three climbs and at the half, and that of no change at all
        return n * (self.passes * self.repeats + 6)

    def find(self, task: UniversalTask, seed: int) -> PerturbationResult:
        half = self.passes - self.passes // 2
        first = Climb(self, task, seed, "first", self.loss(), self.passes)
        if not self.balance or task.class_counts is None or half == self.passes:
            return first.go_on(self.passes).result()
        first.go_on(half)
        left = self.passes - half
        if len(first.history) == half:  # more where a checkpoint holds more: then it was to go on
            target, share = task.gathered(first.perturbation)
            promising = self._promising(task, target, share)
            if promising or share >= COMPLETE:
                result = first.result()
                best = result
                if promising:
                    passes = self.passes // 4 or left
                    with task.toward(1 - target):
                        rarer = Climb(self, task, seed, "rarer", self.loss(), passes).go_on(passes)
                    best, left = _better(result, rarer.result()), left - passes
                if share >= COMPLETE or best.delta is not result.delta:
                    return self._balanced(task, seed, best, left)
        return first.go_on(half + left).result()

    @staticmethod
    def _promising(task: UniversalTask, target: int, share: float) -> bool:
        """Whether the rarer of two classes may give much more than ``target``, the larger one, which has ``share`` of
        the images of the other."""
        counts = task.class_counts
        assert counts is not None
        if len(counts) != 2 or counts[target] - counts[1 - target] <= PREFERENCE * task.n:
            return False
        larger, rarer = counts[target], counts[1 - target]
        return share >= COMPLETE or (1 - share) * rarer <= LITTLE * (larger - share * rarer)

    def _balanced(self, task: UniversalTask, seed: int, result: PerturbationResult, passes: int) -> PerturbationResult:
        """``result``, or what so many passes with equal say for every class make, if that is better."""
        counts = task.class_counts
        assert counts is not None
        if not passes:
            return result
        loss = Balanced(Hinge(KAPPA), len(counts), task.device)
        return _better(result, Climb(self, task, seed, "balanced", loss, passes).go_on(passes).result())


def _better(first: PerturbationResult, second: PerturbationResult) -> PerturbationResult:
    """The second one only where it is better by ``PREFERENCE``. History of both, the better one's last."""
    before, after = (result.history[-1]["rate"] for result in (first, second))
    worse, better = (first, second) if after > before + PREFERENCE else (second, first)
    return PerturbationResult(better.delta, [*worse.history, *better.history])


class Climb:
    """One climb of a method on its way; part: its name in a checkpoint, from which it goes on.

    passes: over which the steps shrink. history: one entry a pass.
    """

    def __init__(
        self, method: MinibatchMethod, task: UniversalTask, seed: int, part: str, loss: UniversalLoss, passes: int
    ) -> None:
        self.method, self.task, self.seed, self.part, self.loss, self.passes = method, task, seed, part, loss, passes
        self.state, self.history = task.resume(part) or (method.start(task), [])
        if self.history and isinstance(loss, Balanced):
            loss.unfooled = self.state["unfooled"]

    def go_on(self, until: int) -> Climb:
        """Make passes until there are so many."""
        for number in range(len(self.history), until):
            turn = Pass(number, self.passes, self.task.order(self.seed, number), self.seed)
            hits = self.method.sweep(self.task, self.state, self.loss, turn)
            self.history.append({"pass": number + 1, "rate": float(hits) / (self.task.n * self.method.repeats)})
            if isinstance(self.loss, Balanced):
                self.state["unfooled"] = self.loss.unfooled
            self.task.keep(self.part, self.state, self.history)
        return self

    @property
    def perturbation(self) -> Tensor:
        """Where it stands, with ``stretch`` scaled to the edge of the ball; 0 stays 0."""
        task, delta = self.task, self.state["delta"]
        if not self.method.stretch:
            return delta
        return task.project(float(task.ball.eps) * task.ball.at_edge(delta[None])[0])

    def result(self) -> PerturbationResult:
        """With the rate under what it ends at: a pass counts what each image met when its turn came."""
        last = self.history[-1] | {"rate": self.task.rate(self.perturbation)}
        return PerturbationResult(self.perturbation, [*self.history[:-1], last])
