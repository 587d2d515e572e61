"""What the methods that follow minibatch gradients share: where a nontargeted climb gets stuck, a pile is tried."""

from __future__ import annotations

from abc import abstractmethod

from medrobust.threat import Untargeted
from medrobust.universal.method import Found, Task, UniversalMethod

PREFERENCE = 0.05
"""By how much of Rf, on the images it was made from, a climb must beat a pile. It has more ways to fit those images: on
seven skin classes, Linf, both reached 98 % of them, and then 82 % (climb) and 95 % (pile) of held-out images."""


class MinibatchMethod(UniversalMethod):
    """Passes over the images in minibatches. A method implements ``climb``.

    Nontargeted, sending all images into their rarest class fools every image that was not there: ``Task.pile``. Where
    the climb ends below that, as it does on a linear network whose classes pull against each other, a second climb goes
    for that class, and is returned unless the first is better on these images by more than ``PREFERENCE``.
    Without ``balance``, as published, there is neither a weight of classes nor a second climb.
    """

    passes: int
    balance: bool
    repeats: int = 1

    @abstractmethod
    def climb(self, task: Task, seed: int) -> Found:
        """The perturbation at the end of all passes, one history entry a pass."""

    def work(self, n: int) -> int:
        # the clean predictions, two climbs, the rates of both, and that of no change at all
        return n * (2 * self.passes * self.repeats + 4)

    def find(self, task: Task, seed: int) -> Found:
        found = self.climb(task, seed)
        pile = task.pile() if isinstance(task.goal, Untargeted) else None
        if pile is None or not self.balance:
            return found
        target, share = pile
        rate = task.rate(found.delta)
        if rate >= share:
            return found
        with task.toward(target):
            piled = self.climb(task, seed)
        other = task.rate(piled.delta)
        if other < rate - PREFERENCE or not piled.delta.any():
            return found
        entry = {"pass": len(found.history) + len(piled.history), "rate": other, "toward": float(target)}
        return Found(piled.delta, [*found.history, entry])
