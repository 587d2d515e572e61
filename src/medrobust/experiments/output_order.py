"""Are a network's outputs in the order of the classes they are taken for? Asked of its answers on clean images.

Two outputs the wrong way round turn an audit upside down and look like a poor classifier. An AUROC whose interval
lies below 0.5, or decisions that another order of the outputs makes right, are the sign of it.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import linear_sum_assignment

from medrobust import guessing, stats
from medrobust.images import UNKNOWN
from medrobust.results import Check
from medrobust.stats import Estimate

NAME = "outputs are in the order of the classes"
"""Of the check; the report finds it by this name."""
QUESTION = "ARE THE NETWORK'S OUTPUTS SWAPPED?"
ADVICE = "no number here means what it says: give their order with --classes, or the data's names with --map"
GAIN = 0.2
"""Of balanced accuracy: what another order must gain at least."""
CLASSES = 20
"""With more classes than this the check is not asked: no order of the outputs can be told from so few images each."""


def outputs_in_order(
    probability: np.ndarray,
    labels: np.ndarray,
    decisions: np.ndarray,
    classes: tuple[str, ...],
    patients: np.ndarray | None = None,
) -> Check:
    """probability (n, k), labels and decisions (n,) on clean images; passed is None where it cannot be asked.

    Of several findings labels are (n, k), and the order is judged by the mean AUROC.
    """
    k = len(classes)
    if labels.ndim == 2:
        return _findings_in_order(probability, labels, classes)
    if k > CLASSES or not labels.size or probability.ndim != 2:
        return not_asked(f"{k} classes and {labels.size} images")
    if k == 2 and 0 < int((labels == 1).sum()) < labels.size:
        area = stats.auroc(probability[:, 1], labels == 1)
        if area.high < 0.5:
            exchanged = float((decisions != labels).mean())
            return _check(
                False,
                f"AUROC {area.value:.2f} ({area.low:.2f} to {area.high:.2f}) lies below 0.5: with its outputs "
                f"exchanged the network reads {exchanged:.0%} correctly instead of {1 - exchanged:.0%}",
            )
    order = _best_order(decisions, labels, k)
    now = _balanced(decisions == labels, labels, patients)
    other = _balanced(_reordered_right(decisions, labels, k), labels, patients)
    swapped = (
        not np.array_equal(order, np.arange(k))
        and now.high < max(1 / k, other.low)
        and other.low > 1 / k
        and other.value - now.value >= GAIN
    )
    detail = f"balanced accuracy {now.value:.0%} ({now.low:.0%} to {now.high:.0%})"
    if swapped:
        detail += f"; with the outputs read as {', '.join(classes[i] for i in order)} it would be {other.value:.0%} "
        detail += f"({other.low:.0%} to {other.high:.0%})"
    else:
        detail += "; no other order of the outputs is clearly better"
    return _check(not swapped, detail)


def _findings_in_order(probability: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> Check:
    """By AUROC of each output for each finding; the best order comes from half of the images, judged on the others."""
    kept = [k for k in range(len(classes)) if all(guessing.varies(labels[half::2, k]) for half in (0, 1))]
    if not 2 <= len(kept) <= CLASSES:
        return not_asked(f"{len(kept)} findings vary among {len(labels)} images")
    halves = [_areas(probability[half::2][:, kept], labels[half::2][:, kept]) for half in (0, 1)]
    now = float(np.mean([np.diag(areas).mean() for areas in halves]))
    orders = [linear_sum_assignment(areas + 1e-9 * np.eye(len(kept)), maximize=True)[1] for areas in halves]
    other = float(np.mean([halves[1 - i][np.arange(len(kept)), order].mean() for i, order in enumerate(orders)]))
    detail = f"mean AUROC {now:.2f} over {len(kept)} findings"
    if other - now < GAIN:
        return _check(True, f"{detail}; no other order of the outputs is clearly better")
    names = ", ".join(classes[kept[i]] for i in np.argsort(orders[0]))
    return _check(False, f"{detail}; with the outputs read as {names} it would be {other:.2f}")


def _areas(probability: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(k, k): AUROC for the finding of the row by the output of the column, from the images in which it is known."""
    k = labels.shape[1]
    areas = np.empty((k, k))
    for j in range(k):
        known = labels[:, j] != UNKNOWN
        areas[j] = [stats.auroc(probability[known, i], labels[known, j] == 1).value for i in range(k)]
    return areas


def not_asked(why: str) -> Check:
    """The check where it cannot be made."""
    return _check(None, f"not asked: {why}")


def question(check: Check) -> str:
    """What a person must answer before any number is read; empty where nothing speaks for swapped outputs."""
    return "" if check.passed is not False else f"{QUESTION} {check.detail}. If they are, {ADVICE}."


def _check(passed: bool | None, detail: str) -> Check:
    return Check(NAME, "none", passed, detail, f"if this fails, the outputs are probably swapped and {ADVICE}")


def _best_order(decisions: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """int (k,): the class that each output serves best as, by the mean of recalls."""
    counts = np.zeros((k, k))
    np.add.at(counts, (labels, decisions), 1)
    rates = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    rates += np.eye(k) * 1e-9  # among equals, as they are
    of_class, output = linear_sum_assignment(rates, maximize=True)
    order = np.empty(k, dtype=np.int64)
    order[output] = of_class
    return order


def _reordered_right(decisions: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """bool (n,): right in the best order of the other half of the images, so that chance cannot choose it."""
    half = np.zeros(labels.size, dtype=bool)
    for c in range(k):
        half[np.flatnonzero(labels == c)[1::2]] = True
    right = np.empty(labels.size, dtype=bool)
    for chosen_on, judged_on in ((half, ~half), (~half, half)):
        order = _best_order(decisions[chosen_on], labels[chosen_on], k)
        right[judged_on] = order[decisions[judged_on]] == labels[judged_on]
    return right


def _balanced(right: np.ndarray, labels: np.ndarray, patients: np.ndarray | None) -> Estimate:
    """Mean recall over the classes that have images; its variance is the sum of theirs over their number squared."""
    recalls = [
        stats.proportion(right[labels == c], None if patients is None else patients[labels == c])
        for c in np.unique(labels)
    ]
    half = math.sqrt(sum(((e.high - e.low) / 2) ** 2 for e in recalls)) / len(recalls)
    mean = float(np.mean([e.value for e in recalls]))
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), labels.size)
