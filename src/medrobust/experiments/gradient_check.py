"""Is the gradient that attacks follow that of the network? The comparison, tested on copies that hide theirs."""

from __future__ import annotations

import math

from medrobust.attacks.derivative import Derivative, Ends, derivative, hidden
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import checks
from medrobust.results import Check
from medrobust.store import Cell, Result

MOST, FEWEST = 24, 6
"""Images that are compared: fewer where they are large."""
PIXELS = 24 * 128**2
"""Pixels that are compared, of all images together."""
TESTED = 6
"""Images on which a copy that hides its gradient must be noticed."""


def compared(part: Dataset) -> int:
    """How many images of that size are compared at most."""
    return max(FEWEST, min(MOST, PIXELS // (part.shape[1] * part.shape[2])))


def derived(classifier: Classifier, sample: Dataset, seed: int) -> Result:
    """The comparison on the network and on copies that hide their gradient; null where nothing could be compared.

    Rounding to grey levels in preprocessing is left out: attacks go through it by the straight-through estimator, and
    what they reach is judged with it.
    """
    images, _ = sample.tensors()
    classifier = classifier.without_rounding()
    ends = Ends(classifier, images, seed, list(sample.ids))
    result = derivative(classifier, images, seed=seed, ids=sample.ids, ends=ends)
    noticed = {}
    if result.holds:
        for name, other in hidden(classifier).items():
            there = derivative(other, images[:TESTED], seed=seed, ids=sample.ids[:TESTED], ends=ends)
            noticed[name] = there.holds is False
    numbers = {k: v if math.isfinite(v) else None for k, v in result._asdict().items()}
    return {"derivative": numbers, "noticed": noticed}, {}


def gradient_check(cell: Cell) -> Check:
    """What ``derived`` found, as a check."""
    numbers = cell.fact("derivative", dict)
    cosine, needed = (math.nan if numbers[k] is None else float(numbers[k]) for k in ("cosine", "range_needed"))
    result = Derivative(cosine, needed, int(numbers["compared"]), int(numbers["examined"]), bool(numbers["flat"]))
    return checks.gradient_holds(result, cell.fact("noticed", dict))


def checked(classifier: Classifier, part: Dataset, seed: int) -> Check:
    """The check in one go, on some images of ``part``."""
    sample = part.sample(compared(part), seed)
    facts, arrays = derived(classifier, sample, seed)
    return gradient_check(Cell(facts, arrays, 0.0))
