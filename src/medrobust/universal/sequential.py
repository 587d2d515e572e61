"""The simple iterative method of Hirano & Takemoto 2020 (Algorithms 13:268), as published: one image after another."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.universal.losses import log_cross_entropy
from medrobust.universal.method import PerturbationResult, UniversalMethod
from medrobust.universal.task import UniversalTask


class Sequential(UniversalMethod):
    """v moves where one small sign step on one image crosses the boundary; all other images change nothing.

    step: length of that step a pixel, in [0, 1]. 0.0012 is the 0.0024 of Hirano et al. 2021 on their [-1, 1] scale.
    passes: over all images, at most. tolerance: done at a rate of 1 - tolerance. keep: "last" (as published) or
    "best", of the perturbations at the end of each pass. clip: False shows the network pixels outside [0, 1], as the
    published code does. The step is a sign step in either norm, as published; only the projection differs.

    Images ahead are looked at together and the looks behind an update are thrown away, so that the result is the
    sequential one; ``gradients`` counts them all.
    """

    title = "Sequential"
    source = "Hirano & Takemoto 2020, Algorithms 13(11):268"

    def __init__(
        self, step: float = 0.0012, passes: int = 15, tolerance: float = 1e-6, keep: str = "last", clip: bool = True
    ) -> None:
        if not step > 0 or passes < 1:
            raise InputError(f"step must be positive and passes at least 1, got {step} and {passes}")
        if keep not in ("last", "best"):
            raise InputError(f"keep must be 'last' or 'best', got {keep!r}")
        self.step, self.passes, self.tolerance, self.keep, self.clip = step, passes, tolerance, keep, clip

    def work(self, n: int) -> int:
        # at most a gradient, a try and a rate for each image and pass, were no look thrown away; no change, and the end
        return n * (3 * self.passes + 3)

    def find(self, task: UniversalTask, seed: int) -> PerturbationResult:
        delta = best = task.zero()
        history: list[dict[str, float]] = []
        if kept := task.resume("passes"):
            (delta, best), history = (kept[0]["delta"], kept[0]["best"]), kept[1]
        for number in range(len(history), self.passes):
            # without an update the next pass meets the same perturbation: nothing would ever change
            if history and (history[-1]["rate"] >= 1 - self.tolerance or not history[-1]["updates"]):
                break
            delta, updates = self._pass(task, delta, task.order(seed, number))
            rate = task.rate(delta, clip=self.clip)
            if not history or rate > max(entry["rate"] for entry in history):
                best = delta
            history.append({"pass": number + 1, "rate": rate, "updates": updates})
            task.keep("passes", {"delta": delta, "best": best}, history)
        chosen, why = best if self.keep == "best" else delta, self._why(delta, history)
        if chosen is not delta or not self.clip:  # what was last measured was another one, or shown in another way
            history = [*history, {"pass": history[-1]["pass"], "rate": task.rate(chosen), "updates": 0}]
        return PerturbationResult(chosen, history, why)

    def _pass(self, task: UniversalTask, delta: Tensor, order: np.ndarray) -> tuple[Tensor, int]:
        """Each image once, in order; the perturbation and the number of updates."""
        place, window, updates = 0, 1, 0
        while place < task.n:
            index = order[place : place + window]
            crossed = self._first_crossing(task, delta, index)
            if crossed is None:
                place, window = place + len(index), min(2 * window, task.batch_size)
            else:
                fooled, delta = crossed
                place, window, updates = place + fooled + 1, max(1, window // 2), updates + 1
        return delta, updates

    def _first_crossing(self, task: UniversalTask, delta: Tensor, index: np.ndarray) -> tuple[int, Tensor] | None:
        """Position of the first image that one step takes across the boundary, and the perturbation after it."""
        images, goal = task.take(index), task.aim(index)
        slope, logits = task.slopes(self._show(task, images, delta), goal, log_cross_entropy)
        left = torch.nonzero(~task.reached(goal, logits))[:, 0]
        if not len(left):
            return None
        stepped = delta + self.step * slope[left].sign()
        after = task.logits(self._show(task, images[left], stepped))
        # nontargeted, "no longer C(x)" and "no longer C(x + v)" are one: only images with C(x + v) = C(x) are tried
        crossing = torch.nonzero(task.reached(goal.take(left), after))[:, 0]
        if not len(crossing):
            return None
        first = int(crossing[0])
        return int(left[first]), task.project(stepped[first])

    def _show(self, task: UniversalTask, images: Tensor, delta: Tensor) -> Tensor:
        return task.show(images, delta) if self.clip else images + delta

    def _why(self, delta: Tensor, history: list[dict[str, float]]) -> str:
        if bool(delta.any()) or history[0]["rate"] == 1:
            return ""
        return (
            f"no image crossed the boundary by one small step of {self.step * 255:.2g} grey levels, so the "
            "perturbation stayed zero: this says nothing about robustness; give a larger step or use sga, sgd or df"
        )
