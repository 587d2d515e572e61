"""Is the gradient that attacks follow that of the network? The comparison, tested on copies that hide theirs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medrobust.attacks.derivative import Derivative, Ends, derivative, hidden
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import checks
from medrobust.results import Check
from medrobust.store import Cell

MOST, FEWEST = 24, 6
"""Images that are compared: fewer where they are large."""
PIXELS = 24 * 128**2
"""Pixels that are compared, of all images together."""
TESTED = 6
"""Images on which a copy that hides its gradient must be noticed."""

Result = tuple[dict[str, Any], dict[str, np.ndarray]]


def compared(part: Dataset) -> int:
    """How many images of that size are compared at most."""
    return max(FEWEST, min(MOST, PIXELS // part.size**2))


def derived(classifier: Classifier, few: Dataset, seed: int) -> Result:
    """The comparison on the network and on copies that hide their gradient; null where nothing could be compared."""
    images, _ = few.tensors()
    ends = Ends(classifier, images, seed, list(few.ids))
    found = derivative(classifier, images, seed=seed, ids=few.ids, ends=ends)
    noticed = {}
    if found.holds:
        for name, other in hidden(classifier).items():
            there = derivative(other, images[:TESTED], seed=seed, ids=few.ids[:TESTED], ends=ends)
            noticed[name] = there.holds is False
    numbers = {k: v if math.isfinite(v) else None for k, v in found._asdict().items()}
    return {"found": numbers, "noticed": noticed}, {}


def gradient_check(cell: Cell) -> Check:
    """What ``derived`` found, as a check."""
    found = cell.facts["found"]
    cosine, needed = (math.nan if found[k] is None else float(found[k]) for k in ("cosine", "range_needed"))
    told = Derivative(cosine, needed, int(found["compared"]), int(found["seen"]), bool(found["flat"]))
    return checks.gradient_holds(told, cell.facts["noticed"])


def mark(rows: list[dict[str, Any]], check: Check) -> None:
    """Gives every row a status, for commands whose rows all rest on attacks that follow gradients."""
    for row in rows:
        row["status"] = "inconclusive" if check.passed is False else "ok"


def checked(classifier: Classifier, part: Dataset, seed: int) -> Check:
    """The check in one go, on some images of ``part``."""
    few = part.sample(compared(part), seed)
    facts, arrays = derived(classifier, few, seed)
    return gradient_check(Cell(facts, arrays, 0.0))
