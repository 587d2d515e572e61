"""Kinds of outputs of a network: one of k classes, one logit for a yes/no question, or k independent findings.

Every head turns raw outputs into canonical logits (n, k) and answers the same questions about them, so that
attacks and judging are written once and work from one logit and two classes up.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medrobust.errors import InputError
from medrobust.images import UNKNOWN, Labels, Logits, PerImage

Threshold = float | tuple[float, ...] | None
"""Operating point: the probability above which the second of two classes is decided, or each finding; None: 0.5."""


class Head(ABC):
    """How to read (n, k) canonical logits."""

    name: str

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """How many raw outputs a network of so many classes has."""

    @abstractmethod
    def canonical(self, raw: Tensor) -> Logits:
        """Raw outputs (n, outputs) to logits (n, k)."""

    @abstractmethod
    def decide(self, logits: Logits) -> Labels:
        """The decision: (n,) class indices, or (n, k) findings of 0 and 1."""

    def targets(self, classes: Sequence[str]) -> tuple[str, ...]:
        """Names of what one index can ask of every image: to be decided as a class."""
        return tuple(classes)

    @abstractmethod
    def probabilities(self, logits: Logits) -> Tensor:
        """float32 (n, k) in [0, 1]."""

    @abstractmethod
    def mean(self, each: Tensor, probable: bool) -> Logits:
        """Logits (n, k) of the mean over several answers (d, n, k): of their probabilities, or of the logarithms."""

    @abstractmethod
    def gap(self, logits: Logits, labels: Labels) -> PerImage:
        """How far the logits are from any decision other than ``labels``; negative where it is another already."""

    @abstractmethod
    def needed(self, labels: Labels, classes: int) -> Tensor:
        """float32 (n, m, k): the decision is ``labels`` where all products with the logits (k) are positive.

        labels: (n,), or (n, k) of several findings; where less than m things are asked of an image, one stands twice.
        """

    @abstractmethod
    def log_cross_entropy(self, logits: Logits, labels: Labels) -> PerImage:
        """Logarithm of the cross-entropy of ``labels``.

        Same maxima and same direction of ascent as the cross-entropy, but it does not saturate: where p rounds to
        1 the cross-entropy and its gradient are 0, and confident models would look robust.
        """

    def odds_against(self, logits: Logits, labels: Labels) -> PerImage | None:  # noqa: ARG002
        """Logarithm of the odds against ``labels``, of which the cross-entropy is a rising function; None where the
        cross-entropy is a sum over several findings."""
        return None

    @abstractmethod
    def check_labels(self, labels: Tensor, classes: int) -> Labels:
        """int64 labels of the right shape and range, or InputError."""

    @property
    def multilabel(self) -> bool:
        """Whether a decision is a set of findings, and labels are (n, k) of 0, 1 and UNKNOWN."""
        return False

    def check_threshold(self, threshold: float | Sequence[float] | None, classes: int) -> Threshold:
        """The operating point, None for the default of 0.5; InputError where this head and ``classes`` have none.

        Of several findings one number is for all of them; of several numbers NaN stands for 0.5.
        """
        if threshold is None:
            return None
        if not self.multilabel and classes != 2:
            raise InputError(f"an operating point needs exactly two classes, got {classes} with head {self.name!r}")
        given = (threshold,) if isinstance(threshold, (int, float)) else tuple(threshold)
        if len(given) > 1:
            given = tuple(0.5 if t != t else t for t in given)
        for value in given:
            if not 0 < value < 1:
                raise InputError(f"threshold must lie between 0 and 1, got {value}")
        if len(given) not in (1, classes if self.multilabel else 1):
            needed = f"one for all or one for each of {classes} findings" if self.multilabel else "one"
            raise InputError(f"give {needed}, got {len(given)} thresholds")
        if all(value == 0.5 for value in given):
            return None
        if not self.multilabel:
            return float(given[0])
        return tuple(map(float, given if len(given) == classes else given * classes))

    def offset(self, threshold: float | tuple[float, ...], logits: Logits) -> Tensor:
        """What logits are lowered by so that a decision at 0.5 is one at ``threshold``: (k,), of their type."""
        values = threshold if isinstance(threshold, tuple) else (0.5, threshold)
        return logits.new_tensor([math.log(t) - math.log1p(-t) for t in values])

    def wrong(self, logits: Logits, labels: Labels) -> Tensor:
        """bool (n,): the decision differs from ``labels``."""
        return self.decide(logits) != labels


class Softmax(Head):
    """k logits, one class (k >= 2)."""

    name = "softmax"

    def outputs(self, classes: int) -> int:
        return classes

    def canonical(self, raw: Tensor) -> Logits:
        return raw

    def decide(self, logits: Logits) -> Labels:
        return logits.argmax(1)

    def probabilities(self, logits: Logits) -> Tensor:
        return logits.softmax(1)

    def mean(self, each: Tensor, probable: bool) -> Logits:
        each = each.log_softmax(-1)
        return each.logsumexp(0) - math.log(len(each)) if probable else each.mean(0)

    def gap(self, logits: Logits, labels: Labels) -> PerImage:
        return _of(logits, labels) - _others(logits, labels).amax(1)

    def needed(self, labels: Labels, classes: int) -> Tensor:
        every = torch.arange(classes)
        others = torch.stack([every[every != label] for label in labels])
        return F.one_hot(labels, classes)[:, None].float() - F.one_hot(others, classes)

    def log_cross_entropy(self, logits: Logits, labels: Labels) -> PerImage:
        # -log softmax_y = softplus(logsumexp of the others - z_y)
        return _log_softplus(self.odds_against(logits, labels))

    def odds_against(self, logits: Logits, labels: Labels) -> PerImage:
        return _others(logits, labels).logsumexp(1) - _of(logits, labels)

    def check_labels(self, labels: Tensor, classes: int) -> Labels:
        return _check_index(labels, classes)


class OneLogit(Softmax):
    """One logit for two classes; positive means the second one. Canonical logits are (-z/2, z/2)."""

    name = "logit"

    def outputs(self, classes: int) -> int:
        if classes != 2:
            raise InputError(f"head='logit' answers one yes/no question: give two classes, got {classes}")
        return 1

    def canonical(self, raw: Tensor) -> Logits:
        return torch.cat([-raw / 2, raw / 2], 1)


class MultiLabel(Head):
    """k independent findings, one logit each; a decision is the whole set of findings.

    Labels are (n, k) of 0, 1 and UNKNOWN, or for one finding alone an index (n,): i asks for finding i, k + i for its
    absence.
    """

    name = "multilabel"

    @property
    def multilabel(self) -> bool:
        return True

    def outputs(self, classes: int) -> int:
        return classes

    def targets(self, classes: Sequence[str]) -> tuple[str, ...]:
        return (*classes, *(f"no {name}" for name in classes))

    def canonical(self, raw: Tensor) -> Logits:
        return raw

    def decide(self, logits: Logits) -> Labels:
        return (logits > 0).long()

    def probabilities(self, logits: Logits) -> Tensor:
        return F.logsigmoid(logits).exp()  # the last bit of torch's sigmoid depends on how many numbers there are

    def mean(self, each: Tensor, probable: bool) -> Logits:
        if not probable:
            return each.mean(0)
        return F.logsigmoid(each).logsumexp(0) - F.logsigmoid(-each).logsumexp(0)

    def gap(self, logits: Logits, labels: Labels) -> PerImage:
        if labels.ndim == 1:
            return _of(torch.cat([logits, -logits], 1), labels)
        return torch.where(labels == UNKNOWN, torch.inf, (2 * labels - 1) * logits).amin(1)

    def needed(self, labels: Labels, classes: int) -> Tensor:
        first_known = (labels != UNKNOWN).int().argmax(1, keepdim=True)
        asked = torch.where(labels == UNKNOWN, first_known, torch.arange(classes))
        signs = 2 * labels.gather(1, asked) - 1
        return F.one_hot(asked, classes).float() * signs[:, :, None]

    def log_cross_entropy(self, logits: Logits, labels: Labels) -> PerImage:
        if labels.ndim == 1:
            return _log_softplus(_of(torch.cat([-logits, logits], 1), labels))
        return torch.where(labels == UNKNOWN, -torch.inf, _log_softplus((1 - 2 * labels) * logits)).logsumexp(1)

    def wrong(self, logits: Logits, labels: Labels) -> Tensor:
        if labels.ndim == 1:
            decision = self.decide(logits)
            return _of(torch.cat([decision, 1 - decision], 1), labels) == 0
        return ((self.decide(logits) != labels) & (labels != UNKNOWN)).any(1)

    def check_labels(self, labels: Tensor, classes: int) -> Labels:
        if labels.ndim == 1:
            return _check_index(labels, 2 * classes)
        if labels.shape[1] != classes or not ((labels == 0) | (labels == 1) | (labels == UNKNOWN)).all():
            raise InputError(
                f"labels of a multi-label head must be (n, {classes}) of 0, 1 and {UNKNOWN} (unknown), got shape "
                f"{tuple(labels.shape)}"
            )
        if bool((labels == UNKNOWN).all(1).any()):
            raise InputError("an image has no known finding; leave it out")
        return labels.long()


HEADS: dict[str, type[Head]] = {"softmax": Softmax, "logit": OneLogit, "multilabel": MultiLabel}


def head_named(name: str) -> Head:
    """The head of that name, or InputError that lists them."""
    if name not in HEADS:
        raise InputError(f"head {name!r} is not known; choose one of {', '.join(HEADS)}")
    return HEADS[name]()


def head_for(given: str | None, multilabel: bool) -> str:
    """The name of the head for labels of one class an image, or of several findings; InputError for another one.

    given: the one that was asked for; None takes the usual one.
    """
    if given is None:
        return "multilabel" if multilabel else "softmax"
    if head_named(given).multilabel != multilabel:
        raise InputError(
            f"the labels are {'several findings' if multilabel else 'one class'} an image, and head {given!r} answers "
            f"with {'one class' if multilabel else 'several findings'}: leave the head out, or read the labels "
            f"{'of one finding' if multilabel else 'as findings (a column each, or a separator)'}"
        )
    return given


def _log_softplus(x: Tensor) -> Tensor:
    """log(log(1 + e^x)), which is x to double precision below -40; both branches keep a finite gradient.

    logsigmoid, because the last bit of torch's softplus depends on how many numbers there are.
    """
    return torch.where(x < -40, x, (-F.logsigmoid(-x.clamp_min(-40))).log())


def _of(logits: Logits, labels: Labels) -> PerImage:
    return logits.gather(1, labels[:, None])[:, 0]


def _others(logits: Logits, labels: Labels) -> Logits:
    # the column itself is masked rather than subtracted, so that logits of any sign and size are handled
    return logits.scatter(1, labels[:, None], -torch.inf)


def _check_index(labels: Tensor, classes: int) -> Labels:
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise InputError(f"labels must be int64 (n,), got {labels.dtype} of shape {tuple(labels.shape)}")
    if labels.numel() and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
        raise InputError(
            f"labels must lie in 0..{classes - 1} for {classes} classes, got {int(labels.min())}..{int(labels.max())}"
        )
    return labels.long()
