"""Operating points: the probability above which a finding, or the second of two classes, is decided.

Given as one number or one a finding, or chosen on validation images by a stated rule.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.heads import Threshold
from medrobust.images import UNKNOWN

RULES = ("youden", "f1", "sensitivity=S", "specificity=S")
ROWS = 256
"""Images decoded at a time."""
LARGEST = 30.0
"""Largest logit of a threshold: its probability is still below 1 in double precision."""


class ThresholdRule(NamedTuple):
    """Sensitivity plus specificity (youden) or F1 is largest, or one of the two is no less than ``least``."""

    name: str
    least: float = 0.0

    @classmethod
    def read(cls, text: str) -> ThresholdRule:
        """``youden``, ``f1``, ``sensitivity=0.9`` or ``specificity=0.9``."""
        if text in ("youden", "f1"):
            return cls(text)
        match = re.fullmatch(r"(sensitivity|specificity)=(\d*\.?\d+)", text)
        if match is None or not 0 < float(match[2]) <= 1:
            raise InputError(
                f"the rule for thresholds must be youden, f1, sensitivity=0.9 or specificity=0.9 (a share above 0, up "
                f"to 1), got {text!r}"
            )
        return cls(match[1], float(match[2]))

    def __str__(self) -> str:
        return self.name if not self.least else f"{self.name}={self.least:g}"

    def cut(self, logits: np.ndarray, present: np.ndarray) -> float:
        """The logit above which a finding is decided. logits, present: (n,); both kinds of images are there.

        Half way between two logits that occur, or 1 beyond the outermost; the largest of equally good ones.
        """
        levels = np.unique(logits.astype(np.float64))
        cuts = np.concatenate([levels[:1] - 1, (levels[:-1] + levels[1:]) / 2, levels[-1:] + 1])
        hits = 1 - np.searchsorted(np.sort(logits[present]), cuts, "right") / present.sum()
        rejected = np.searchsorted(np.sort(logits[~present]), cuts, "right") / (~present).sum()
        if self.name == "sensitivity":
            return float(cuts[hits >= self.least - 1e-12].max())
        if self.name == "specificity":
            return float(cuts[rejected >= self.least - 1e-12].min())
        found = hits * present.sum()
        alarms = (1 - rejected) * (~present).sum()
        gain = hits + rejected if self.name == "youden" else 2 * found / (found + alarms + present.sum())
        return float(cuts[np.flatnonzero(gain >= gain.max() - 1e-12)[-1]])


def read(text: str) -> float | dict[str, float]:
    """``0.3`` for all, or ``effusion=0.3,nodule=0.5``."""
    try:
        if "=" not in text:
            return float(text)
        pairs = [part.rpartition("=") for part in text.split(",")]
        return {name.strip(): float(value) for name, _, value in pairs}
    except ValueError:
        raise InputError(f"--threshold wants 0.3, or one a finding: effusion=0.3,nodule=0.5; got {text!r}") from None


def placed(given: float | Mapping[str, float] | None, classifier: Classifier) -> Threshold:
    """``given`` as ``Classifier`` takes it; findings that it does not name keep theirs. InputError for others."""
    if given is None or not isinstance(given, Mapping):
        return classifier.threshold if given is None else given
    if not classifier.head.multilabel:
        if set(given) == set(classifier.classes[1:]) and len(classifier.classes) == 2:
            return given[classifier.classes[1]]
        raise InputError(
            f"--threshold names {', '.join(given)}: one number is needed, the probability of {classifier.classes[-1]}"
            if len(classifier.classes) == 2
            else f"--threshold needs exactly two classes or several findings, got {', '.join(classifier.classes)}"
        )
    unknown = [name for name in given if name not in classifier.classes]
    if unknown:
        raise InputError(f"--threshold names {unknown[0]!r}; the findings are {', '.join(classifier.classes)}")
    now = classifier.threshold if isinstance(classifier.threshold, tuple) else (0.5,) * len(classifier.classes)
    return tuple(given.get(name, own) for name, own in zip(classifier.classes, now, strict=True))


def chosen(classifier: Classifier, part: Dataset, rule: ThresholdRule) -> tuple[Classifier, tuple[str, ...]]:
    """``classifier`` at the thresholds that ``rule`` chooses on ``part``, and notes: on findings left at 0.5."""
    several = classifier.head.multilabel
    if not several and len(classifier.classes) != 2:
        raise InputError(
            f"a threshold is chosen for two classes or for several findings, got {', '.join(classifier.classes)}"
        )
    part = part.by_id()
    labels = part.labels
    logits = torch.cat([classifier.logits(images) for images, _, _ in part.batches(ROWS)]).double()
    if classifier.threshold is not None:
        logits = logits + classifier.head.offset(classifier.threshold, logits)
    scores = (logits if several else logits[:, 1:] - logits[:, :1]).numpy()
    truth = labels if several else labels[:, None]
    thresholds, left = [], []
    for column, present, name in zip(scores.T, truth.T, classifier.classes if several else ("",), strict=True):
        known = present != UNKNOWN
        if np.unique(present[known]).size < 2:
            thresholds.append(0.5)
            left.append(name)
            continue
        cut = float(np.clip(rule.cut(column[known], present[known] == 1), -LARGEST, LARGEST))
        thresholds.append(float(torch.tensor(cut, dtype=torch.float64).sigmoid()))
    notes = [f"Thresholds were chosen on {len(labels)} validation images by the rule {rule}."]
    if left:
        named = ", ".join(filter(None, left)) or "the second class"
        notes.append(f"Not both present and absent there, so that 0.5 stays: {named}.")
    moved = classifier.at(tuple(thresholds) if several else thresholds[0])
    moved.provenance |= {"threshold_rule": {"rule": str(rule), "images": len(labels)}}
    return moved, tuple(notes)


def text(threshold: Threshold, classes: Sequence[str]) -> str:
    """In words: "effusion 0.31, nodule 0.5"; "" where it is 0.5 throughout."""
    if threshold is None:
        return ""
    if not isinstance(threshold, tuple):
        return f"{threshold:.3g}"
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(classes, threshold, strict=True))
