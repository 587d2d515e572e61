"""Labels of several findings an image: int64 (n, k) of 0, 1 and UNKNOWN, a column a finding."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

import medrobust.data.words as words
from medrobust import limits
from medrobust.data.labels import NO_LABEL, Numbered
from medrobust.errors import InputError
from medrobust.images import UNKNOWN

if TYPE_CHECKING:
    from medrobust.data.dataset import Dataset

NOTHING = "no finding"
NO_FINDING = frozenset({"nofinding", "nofindings", "none", "normal", "healthy", "negative"})
"""Labels that stand for no finding at all, as ``words.bare`` writes them."""


def check(name: str, labels: np.ndarray, classes: tuple[str, ...] | None) -> Numbered:
    """The findings as ``labels.number_classes`` gives classes. InputError where they tell too little.

    An image whose findings are all unknown has no label.
    """
    assert classes is not None
    labels = np.asarray(labels, dtype=np.int64)
    limits.check(limits.CLASSES, len(classes), name)
    if labels.shape[1] != len(classes) or not np.isin(labels, (0, 1, UNKNOWN)).all():
        raise InputError(f"labels of {name} must be (n, {len(classes)}) of 0, 1 and {UNKNOWN}, got {labels.shape}")
    nothing = unlabelled(labels)
    if 2 * int(nothing.sum()) > len(labels):
        raise InputError(f"{int(nothing.sum())} of the {len(labels)} images of {name} have no known finding")
    constant = [c for k, c in enumerate(classes) if not {0, 1} <= set(labels[:, k].tolist())]
    if len(constant) == len(classes):
        raise InputError(f"no finding of {name} is present in one image and absent in another: {', '.join(constant)}")
    notes = []
    unknown = (labels[~nothing] == UNKNOWN).sum(0)
    if unknown.any():
        each = ", ".join(f"{c} {n}" for c, n in zip(classes, unknown.tolist(), strict=True) if n)
        notes.append(
            f"{int(unknown.sum())} findings of images are unknown (blank, NaN or -1) and take no part: {each}."
        )
    none = [c for c in classes if words.bare(c) in NO_FINDING]
    if none:
        notes.append(f"{none[0]} is read as a finding like the others; if it stands for none of them: --leave-out.")
    if constant:
        notes.append(f"Findings that no image has, or every image: {', '.join(constant)}.")
    return classes, labels, tuple(notes)


def unlabelled(labels: np.ndarray) -> np.ndarray:
    """bool (n,): images of which no finding is known."""
    return np.asarray((labels == UNKNOWN).all(1))


def text(labels: np.ndarray, classes: Sequence[str]) -> str:
    """The findings of one image, labels (k,), in words."""
    return " + ".join(c for c, label in zip(classes, labels.tolist(), strict=True) if label == 1) or NOTHING


def renamed(data: Dataset, names: Mapping[str, str], leave_out: Sequence[str]) -> Dataset:
    """``data`` with findings renamed, and without the findings ``leave_out``. Of two with one name, the image has it
    where it has either, and lacks it where both are known to be absent."""
    columns: dict[str, np.ndarray] = {}
    for place, old in enumerate(data.classes):
        if old in leave_out:
            continue
        new, column = names.get(old, old), data.labels[:, place]
        columns[new] = _either(columns[new], column) if new in columns else column
    return _with(data, columns)


def in_order_of(data: Dataset, classes: tuple[str, ...]) -> Dataset:
    """``data`` with these findings in this order; one that it does not have is unknown in every image."""
    unknown = np.full(len(data), UNKNOWN, dtype=np.int64)
    held = dict(zip(data.classes, data.labels.T, strict=True))
    missing = [name for name in classes if name not in held]
    part = _with(data, {name: held.get(name, unknown) for name in classes})
    if not missing:
        return part
    note = f"The data does not say which images have {', '.join(missing)}: unknown in every image."
    return dataclasses.replace(part, notes=(*part.notes, note))


def _with(data: Dataset, columns: Mapping[str, np.ndarray]) -> Dataset:
    """``data`` with these findings, and without the images of which none of them is known."""
    if not columns:
        raise InputError(f"no finding of {data.name} is left")
    labels = np.stack(list(columns.values()), 1)
    kept = ~unlabelled(labels)
    part = dataclasses.replace(data, classes=tuple(columns), labels=labels)
    if kept.all():
        return part
    note = f"{int((~kept).sum())} images were left out: {NO_LABEL} among {', '.join(columns)}."
    return dataclasses.replace(part.select(np.flatnonzero(kept)), notes=(*data.notes, note))


def _either(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.where((a == 1) | (b == 1), 1, np.minimum(a, b))
