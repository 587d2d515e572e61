"""The rows of one classifier: without an attack, under an attack image by image, and under random noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from medrobust import guessing, stats
from medrobust.experiments.checks import TOLERATED
from medrobust.images import BIT_DEPTHS, UNKNOWN
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows, withstands
from medrobust.stats import Estimate

MANY = 20
"""With more classes than this, numbers for each class would bury the others."""


def clean_rows(
    rows: Rows,
    probability: np.ndarray | None,
    labels: np.ndarray,
    decisions: np.ndarray,
    classes: tuple[str, ...],
    patients: np.ndarray | None,
    ordinal: bool = False,
    shares: np.ndarray | None = None,
) -> None:
    """Clean performance on the whole test split: probability (n, k), labels and decisions (n,); (n, k) of findings.

    shares: of a random network (n,), the share of right answers, of which the accuracy is the mean.

    probability: None of a classifier that answers with labels, of which there is no AUROC and no calibration.
    """
    if labels.ndim == 2:
        _finding_rows(rows, probability, labels, decisions, classes, patients)
        return
    right = decisions == labels
    rows.add(Kind.CLEAN, "accuracy", stats.proportion(right if shares is None else shares, patients))
    recalls = [stats.proportion(right[labels == k], _of(patients, labels == k)) for k in range(len(classes))]
    chance = guessing.of(right, labels, patients)
    rows.add(Kind.CLEAN, "balanced_accuracy", chance.balanced)
    level = Estimate(chance.level, math.nan, math.nan, labels.size)
    rows.add(Kind.CLEAN, "guessing", level, note="an answer that never changes")
    if ordinal:
        rows.add(Kind.CLEAN, "grade_error", stats.mean(abs(decisions - labels), patients), note="in grades")
    if len(classes) == 2 and probability is not None:
        rows.add(Kind.CLEAN, "auroc", stats.auroc(probability[:, 1], labels == 1, patients))
    if len(classes) <= MANY:
        for k, name in enumerate(classes):
            in_class = labels == k
            specificity = stats.proportion((decisions != k)[~in_class], _of(patients, ~in_class))
            rows.add(Kind.CLEAN, "sensitivity", recalls[k], class_name=name)
            rows.add(Kind.CLEAN, "specificity", specificity, class_name=name)
            if probability is not None:
                rows.add(Kind.CLEAN, "auroc", stats.auroc(probability[:, k], in_class, patients), class_name=name)
    if probability is None:
        return
    confidence = probability[np.arange(labels.size), decisions]
    ece = stats.calibration_error(confidence, right)
    rows.add(Kind.CLEAN, "ece", Estimate(ece, math.nan, math.nan, labels.size), note="15 bins of equal size")
    rows.add(Kind.CLEAN, "brier", stats.mean(((probability - np.eye(len(classes))[labels]) ** 2).sum(1), patients))


def _finding_rows(
    rows: Rows,
    probability: np.ndarray | None,
    labels: np.ndarray,
    decisions: np.ndarray,
    classes: tuple[str, ...],
    patients: np.ndarray | None,
) -> None:
    """Clean performance of several findings: all arrays (n, k); UNKNOWN labels take part in nothing."""
    right, judged = decisions == labels, labels != UNKNOWN
    accuracy = stats.proportion(guessing.right(decisions, labels), patients)
    rows.add(Kind.CLEAN, "accuracy", accuracy, note="every known finding of the image")
    chance = guessing.of(right, labels, patients)
    mean = "mean over the findings"
    rows.add(Kind.CLEAN, "balanced_accuracy", chance.balanced, note=mean)
    level = Estimate(chance.level, math.nan, math.nan, len(labels))
    rows.add(Kind.CLEAN, "guessing", level, note="an answer that never changes")
    areas = {}
    for k, name in enumerate(classes):
        hits, y, whose = guessing.known(right[:, k], labels[:, k], patients)
        present = y == 1
        if probability is not None:
            areas[name] = stats.auroc(probability[judged[:, k], k], present, whose)
        if len(classes) <= MANY:
            sensitivity = stats.proportion(hits[present], _of(whose, present))
            specificity = stats.proportion(hits[~present], _of(whose, ~present))
            rows.add(Kind.CLEAN, "sensitivity", sensitivity, class_name=name)
            rows.add(Kind.CLEAN, "specificity", specificity, class_name=name)
            if name in areas:
                rows.add(Kind.CLEAN, "auroc", areas[name], class_name=name)
            unknown = stats.proportion(~judged[:, k], patients)
            rows.add(Kind.CLEAN, "unknown", unknown, class_name=name)
    if probability is None:
        return
    each = [area for k, area in enumerate(areas.values()) if guessing.varies(labels[:, k])]
    rows.add(Kind.CLEAN, "auroc", guessing.mean_of(each, len(labels)), note=mean)
    confidence = np.where(decisions == 1, probability, 1 - probability)[judged]
    ece = stats.calibration_error(confidence, right[judged])
    rows.add(Kind.CLEAN, "ece", Estimate(ece, math.nan, math.nan, len(labels)), note="15 bins of equal size")
    off = np.where(judged, (probability - labels) ** 2, 0).sum(1) / judged.sum(1)
    rows.add(Kind.CLEAN, "brier", stats.mean(off, patients), note=mean)


def attack_rows(
    rows: Rows,
    attack: str,
    eps: tuple[float, ...],
    min_eps: np.ndarray,
    labels: np.ndarray,
    after: np.ndarray,
    no_gradient: np.ndarray,
    classes: tuple[str, ...],
    patients: np.ndarray | None,
    doubt: str = "",
    kind: Kind = Kind.ATTACK,
    ordinal: bool = False,
    by_class: bool = False,
    shares: np.ndarray | None = None,
) -> None:
    """What an attack did at each eps, from one eps* an image. ordinal: classes are grades in their order.

    by_class: also the sensitivity of each class, and of two classes the specificity.

    min_eps: (n,) smallest eps that fooled; 0 wrong before, inf never. after: decisions at eps*.
    no_gradient: (n,) images whose gradient vanished and that were never fooled. doubt: why this attack is not believed.
    shares: of a random network (n, len(eps)), the share of right answers, of which accuracies are the mean.
    """
    start_right = min_eps > 0
    for i, at in enumerate(eps):
        held = withstands(min_eps, at)
        right = held if shares is None else shares[:, i]
        lost = int((held & no_gradient).sum())
        note = doubt or (f"{lost} of {held.size} images had no usable gradient" if lost else "")
        status = INCONCLUSIVE if doubt or lost >= max(1, TOLERATED * held.size) else OK

        def add(metric: str, share: Estimate, at: float = at, status: str = status, note: str = note, **m: str) -> None:
            rows.add(kind, metric, share, attack=attack, eps=at, status=status, note=note, **m)

        add("accuracy", stats.proportion(right, patients))
        add("success", stats.proportion(1 - right[start_right].astype(float), _of(patients, start_right)))
        if ordinal:
            moved = np.where(held, 0, after - labels)[start_right]
            _grade_rows(add, moved, _of(patients, start_right))
        for k, name in enumerate(classes if by_class and len(classes) <= MANY and labels.ndim == 1 else ()):
            of = labels == k
            add("sensitivity", stats.proportion(right[of], _of(patients, of)), class_name=name)
            if len(classes) == 2:  # of more, an image of another class may be turned to a third
                add("specificity", stats.proportion(right[~of], _of(patients, ~of)), class_name=name)
        for source, goal, of, into in _directions(labels, classes):
            chosen = start_right & of
            flipped = stats.proportion((~held & (after == into))[chosen], _of(patients, chosen))
            add("flip", flipped, class_name=source, target=goal)
    middle = stats.median(min_eps[start_right], _of(patients, start_right))
    note = doubt or ("" if math.isfinite(middle.value) else "above the grid")
    status = INCONCLUSIVE if doubt else OK
    rows.add(kind, "min_eps_median", middle, attack=attack, eps=max(eps), status=status, note=note)
    rows.add(kind, "inconclusive", stats.proportion(no_gradient & (min_eps > 0), patients), attack=attack, eps=max(eps))


def _grade_rows(add: Callable[[str, Estimate], None], moved: np.ndarray, patients: np.ndarray | None) -> None:
    """How far grades move. moved: (n,) grades that images read correctly before are moved by; negative: lowered."""
    add("grade_shift", stats.mean(abs(moved), patients))
    add("grade_far", stats.proportion(abs(moved) > 1, patients))
    add("grade_lowered", stats.proportion(moved < 0, patients))


def saving_rows(
    rows: Rows, attack: str, eps: float, arrays: Mapping[str, np.ndarray], patients: np.ndarray | None, doubt: str = ""
) -> None:
    """Accuracy on full-strength examples as computed, and after they were saved at each of BIT_DEPTHS.

    arrays: of ``robustness_cells.saving``. doubt: why this attack is not believed.
    """
    at: Mapping[str, Any] = {"attack": attack, "eps": eps, "status": INCONCLUSIVE if doubt else OK, "note": doubt}
    rows.add(Kind.ATTACK, "accuracy_full", stats.proportion(~arrays["reached"], patients), **at)
    for bits in BIT_DEPTHS:
        held = stats.proportion(~arrays[f"saved{bits}"], patients)
        rows.add(Kind.ATTACK, "accuracy_saved", held, bits=bits, **at)


def noise_rows(
    rows: Rows,
    eps: tuple[float, ...],
    decisions: np.ndarray,
    labels: np.ndarray,
    right: np.ndarray,
    classes: tuple[str, ...],
    patients: np.ndarray | None,
    ordinal: bool = False,
) -> None:
    """Accuracy and directions under random noise: the control of every share that an attack turns.

    decisions: (n, len(eps)). right: bool (n,), read correctly without noise. ordinal: classes are grades.
    """
    for i, at in enumerate(eps):
        if ordinal:
            add = partial(rows.add, Kind.CONTROL, attack="noise", eps=at)
            _grade_rows(add, (decisions[:, i] - labels)[right], _of(patients, right))
        share = stats.proportion(guessing.right(decisions[:, i], labels), patients)
        rows.add(Kind.CONTROL, "accuracy", share, attack="noise", eps=at)
        for source, goal, of, into in _directions(labels, classes):
            chosen = right & of
            turned = stats.proportion((decisions[:, i] == into)[chosen], _of(patients, chosen))
            rows.add(Kind.CONTROL, "flip", turned, attack="noise", eps=at, class_name=source, target=goal)


def _directions(labels: np.ndarray, classes: tuple[str, ...]) -> Iterator[tuple[str, str, np.ndarray, int]]:
    """Class, other class, which images have the first label, index of the other.

    None with more than MANY classes, nor where findings do not exclude each other.
    """
    for a, source in enumerate(classes if len(classes) <= MANY and labels.ndim == 1 else ()):
        for b, goal in enumerate(classes):
            if a != b:
                yield source, goal, labels == a, b


def _of(groups: np.ndarray | None, mask: np.ndarray) -> np.ndarray | None:
    return None if groups is None else groups[mask]
