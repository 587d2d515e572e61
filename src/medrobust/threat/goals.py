"""Goals of an attack: any other decision than the label (untargeted), or one chosen decision (targeted).

Both losses are to be ascended. ``margin`` is positive exactly where the goal is reached.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.heads import Head
from medrobust.images import Labels, Logits, PerImage, renumbered


class Goal(ABC):
    """Untargeted or Targeted, for a batch of images."""

    labels: Tensor | None

    @abstractmethod
    def prepare(self, head: Head, classes: int, n: int, device: torch.device) -> Goal:
        """The goal for n images, checked: int64 labels on ``device``. InputError where they do not fit."""

    @abstractmethod
    def take(self, index: Tensor) -> Goal:
        """The goal of those rows."""

    @abstractmethod
    def in_order_of(self, classes: Sequence[str], wanted: Sequence[str]) -> Goal:
        """The same goal for a classifier whose classes are ``wanted``; its labels were numbered as ``classes``."""

    @abstractmethod
    def reached(self, head: Head, logits: Logits) -> Tensor:
        """bool (n,): the decision is what the attack wants."""

    @abstractmethod
    def margin(self, head: Head, logits: Logits) -> PerImage:
        """By how many logits the goal is reached; negative: how many are missing."""

    @abstractmethod
    def cross_entropy(self, head: Head, logits: Logits) -> PerImage:
        """To be ascended: log cross-entropy of the label, or minus that of the target."""

    def ceiling(self, head: Head, logits: Logits) -> PerImage | None:  # noqa: ARG002
        """No smaller than the margin, and rising with ``cross_entropy`` (so that both have one direction); None where
        no such number is known."""
        return None


class Untargeted(Goal):
    """Any decision other than ``labels``; without labels (universal perturbations), than the clean prediction."""

    def __init__(self, labels: Labels | None = None) -> None:
        self.labels = labels

    def prepare(self, head: Head, classes: int, n: int, device: torch.device) -> Untargeted:
        if self.labels is None:
            raise InputError("this attack needs labels: Untargeted(labels)")
        labels = torch.as_tensor(self.labels)
        if labels.ndim == 0 or labels.shape[0] != n:
            raise InputError(f"{n} images but labels of shape {tuple(labels.shape)}; give one label an image")
        return Untargeted(head.check_labels(labels, classes).to(device))

    def in_order_of(self, classes: Sequence[str], wanted: Sequence[str]) -> Untargeted:
        if self.labels is None:
            return self
        return Untargeted(renumbered(torch.as_tensor(self.labels), classes, wanted))

    def take(self, index: Tensor) -> Untargeted:
        return Untargeted(self._labels[index])

    def reached(self, head: Head, logits: Logits) -> Tensor:
        return head.wrong(logits, self._labels)

    def margin(self, head: Head, logits: Logits) -> PerImage:
        return -head.gap(logits, self._labels)

    def cross_entropy(self, head: Head, logits: Logits) -> PerImage:
        return head.log_cross_entropy(logits, self._labels)

    def ceiling(self, head: Head, logits: Logits) -> PerImage | None:
        return head.odds_against(logits, self._labels)

    @property
    def _labels(self) -> Labels:
        assert self.labels is not None
        return self.labels


class Targeted(Goal):
    """The decision ``target``: one class index for all images, or int64 (n,).

    For several findings a set of them, int64 (n, k) or (1, k) for all images: 0, 1, or -1 for one that does not matter.
    """

    def __init__(self, target: int | Labels) -> None:
        self.labels: Tensor = torch.as_tensor(target)

    def prepare(self, head: Head, classes: int, n: int, device: torch.device) -> Targeted:
        labels = self.labels
        if labels.ndim == 0:
            if not 0 <= int(labels) < classes * (2 if head.multilabel else 1):  # presence and absence
                raise InputError(f"target class {int(labels)} does not exist; classes are 0..{classes - 1}")
            labels = labels.expand(n)
        elif labels.ndim == 2 and labels.shape[0] == 1:
            labels = labels.expand(n, -1)
        if labels.shape[0] != n:
            raise InputError(f"{n} images but {labels.shape[0]} targets; give one target, or one an image")
        return Targeted(head.check_labels(labels, classes).to(device))

    def in_order_of(self, classes: Sequence[str], wanted: Sequence[str]) -> Targeted:
        return Targeted(renumbered(self.labels, classes, wanted))

    def take(self, index: Tensor) -> Targeted:
        return Targeted(self.labels[index])

    def reached(self, head: Head, logits: Logits) -> Tensor:
        return ~head.wrong(logits, self.labels)

    def margin(self, head: Head, logits: Logits) -> PerImage:
        return head.gap(logits, self.labels)

    def cross_entropy(self, head: Head, logits: Logits) -> PerImage:
        return -head.log_cross_entropy(logits, self.labels)

    def ceiling(self, head: Head, logits: Logits) -> PerImage | None:
        odds = head.odds_against(logits, self.labels)
        # the target leads where it beats each of the others, whose logsumexp is at most log(k - 1) above the best
        return None if odds is None else math.log(logits.shape[1] - 1) - odds


Loss: TypeAlias = Callable[[Goal, Head, Logits], PerImage]


def cross_entropy(goal: Goal, head: Head, logits: Logits) -> PerImage:
    """The cross-entropy that FGSM, BIM and PGD ascend, on a logarithmic scale: same direction, no saturation."""
    return goal.cross_entropy(head, logits)


def ceiling(goal: Goal, head: Head, logits: Logits) -> PerImage | None:
    """See ``Goal.ceiling``: what can be said about the margin by the gradient of ``cross_entropy``."""
    return goal.ceiling(head, logits)


def margin(goal: Goal, head: Head, logits: Logits) -> PerImage:
    """Difference of two logits (Carlini & Wagner 2017, arXiv:1608.04644): no saturation, two classes and up."""
    return goal.margin(head, logits)
