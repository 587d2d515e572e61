"""U-SimBA: hill climbing over cosine patterns, by queries alone (Koga & Takemoto 2022, Algorithms 15(5):144)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from medrobust.attacks.lowfreq import LowFrequency, outwards, reach
from medrobust.errors import InputError
from medrobust.threat import Goal, Targeted
from medrobust.universal.budget import QueryMethod
from medrobust.universal.method import PerturbationResult
from medrobust.universal.task import UniversalTask

KEPT = 16
"""Patterns after which a checkpoint is written."""


class USimBA(QueryMethod):
    """One cosine pattern after another is added and subtracted; the better is kept if all images together like it.

    "Like": the sum over the images of the probability of their clean prediction falls, or that of the target rises.
    Each pattern costs two queries an image, as published; no gradient is taken.

    queries: forward passes of one image each, in all, never exceeded; those for the clean predictions and for the
    start are among them. step: L2 norm of one move, as a share of that of the longest perturbation in the ball (the
    published 0.5 beside zeta = 4 % of images of 299 pixels is about 0.04). frequencies: side of the block of
    frequencies that are tried first. stride: by how many it grows when they are used up.
    """

    title = "U-SimBA"
    source = "Koga & Takemoto 2022, Algorithms 15(5):144"

    def __init__(self, queries: int = 20_000, step: float = 0.04, frequencies: int = 28, stride: int = 7) -> None:
        if min(queries, frequencies, stride) < 1 or not step > 0:
            raise InputError(
                "queries, step, frequencies and stride must be positive, "
                f"got {queries}, {step}, {frequencies} and {stride}"
            )
        self.queries, self.step, self.frequencies, self.stride = queries, step, frequencies, stride

    def least(self, n: int) -> int:
        return 4 * n  # the clean predictions, the start, and one pattern added and subtracted

    def find(self, task: UniversalTask, seed: int) -> PerturbationResult:
        history = []
        for delta, entry in self.path(task, seed):  # noqa: B007 - the last is what was found
            history.append(entry)
        nonzero, done = history[-1]["moves"] > 0, history[-1]["rate"] == 1
        return PerturbationResult(
            delta, history, "" if nonzero or done or not float(task.ball.eps) else self.why_still()
        )

    def path(self, task: UniversalTask, seed: int) -> Iterator[tuple[Tensor, dict[str, float]]]:
        """The perturbation at the start and after each pattern, and its numbers: a larger budget goes on from there.

        Of what a checkpoint kept, the entries come first, all with the perturbation at the end of them.
        """
        basis = LowFrequency(task.shape, max(task.shape), task.device)
        length = self.step * reach(task.ball, task.shape)
        history: list[dict[str, float]] = []
        if kept := task.resume("patterns"):
            (delta, score), history = (kept[0]["delta"], float(kept[0]["score"])), kept[1]
            rate, moves = history[-1]["rate"], history[-1]["moves"]
        else:
            delta, moves = task.zero(), 0
            score, rate = self._evaluate(task, delta)
            history.append({"queries": task.queries, "rate": rate, "moves": moves})
        yield from ((delta, entry) for entry in history)
        ways = outwards(task.shape, self.frequencies, self.stride, seed)
        for channel, row, column in itertools.islice(ways, len(history) - 1, None):
            if rate == 1 or task.queries + 2 * task.n > self.queries:
                break
            pattern = length * basis.basis(channel, row, column)
            tried = [task.project(delta + pattern), task.project(delta - pattern)]
            outputs = [self._evaluate(task, one) for one in tried]
            best = int(outputs[1][0] > outputs[0][0])
            if outputs[best][0] > score:
                (score, rate), delta, moves = outputs[best], tried[best], moves + 1
            task.tell(rate)
            history.append({"queries": task.queries, "rate": rate, "moves": moves})
            if len(history) % KEPT == 0:
                task.keep("patterns", {"delta": delta, "score": torch.tensor(score, dtype=torch.float64)}, history)
            yield delta, history[-1]

    def _evaluate(self, task: UniversalTask, delta: Tensor) -> tuple[float, float]:
        """Sum of the probabilities that are to rise, and the share of images at which the goal is reached."""
        score = torch.zeros((), dtype=torch.float64, device=task.device)
        hits = torch.zeros((), device=task.device)
        for index in task.chunks(np.arange(task.n), task.batch_size):
            goal, logits = task.aim(index), task.logits(task.show(task.take(index), delta))
            score += probability(task, goal, logits).sum()
            hits += task.reached(goal, logits).sum()
        return float(score), float(hits) / task.n


def probability(task: UniversalTask, goal: Goal, logits: Tensor) -> Tensor:
    """float64 (n,) to be raised: of the target, or of anything but the clean prediction; 0 where it is not finite."""
    sign = -1 if isinstance(goal, Targeted) else 1
    own = (-(sign * goal.cross_entropy(task.classifier.head, logits.double())).exp()).exp()
    wanted = own if sign < 0 else 1 - own
    return wanted.nan_to_num(0.0, 0.0, 0.0)
