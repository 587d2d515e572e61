"""Class names of a data set and of a network: labels are mapped by name, never by position."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

import medrobust.data.findings as findings
from medrobust.errors import InputError

if TYPE_CHECKING:
    from medrobust.data.dataset import Dataset

SHOWN = 8
"""Class names that an error message lists."""


def listed(names: Sequence[str]) -> str:
    """The names with commas between; of many the first ones and their number."""
    first = ", ".join(names[:SHOWN])
    return first if len(names) <= SHOWN else f"{first}, … ({len(names)} in all)"


def renamed(data: Dataset, names: Mapping[str, str], leave_out: Sequence[str] = ()) -> Dataset:
    """``data`` with its class names replaced, and without the images of some classes.

    names: {name in the data: new name}; two classes given one name become one class. leave_out: names in the data.
    InputError for a name that the data does not have.
    """
    unknown = [name for name in (*names, *leave_out) if name not in data.classes]
    if unknown:
        raise InputError(f"{data.name} has no class {unknown[0]!r}; it has {listed(data.classes)}")
    notes = list(data.notes)
    if leave_out and data.multilabel:
        notes.append(f"The findings {listed(tuple(leave_out))} were left out, as asked.")
    elif leave_out:
        keep = np.array([data.classes[label] not in leave_out for label in data.labels.tolist()], dtype=bool)
        dropped = int((~keep).sum())
        data = data.select(np.flatnonzero(keep))
        notes.append(f"{dropped} images of {listed(tuple(leave_out))} were left out, as asked.")
    replaced = {old: new for old, new in names.items() if old != new and old not in leave_out}
    if replaced:
        notes.append("Class names were mapped: " + ", ".join(f"{old} to {new}" for old, new in replaced.items()) + ".")
    if data.multilabel:
        return findings.renamed(dataclasses.replace(data, notes=tuple(notes)), replaced, leave_out)
    new_names = [replaced.get(name, name) for name in data.classes]
    classes = tuple(dict.fromkeys(n for n, old in zip(new_names, data.classes, strict=True) if old not in leave_out))
    place = {name: number for number, name in enumerate(classes)}
    labels = np.array([place[new_names[label]] for label in data.labels.tolist()], dtype=np.int64)
    return dataclasses.replace(data, classes=classes, labels=labels, notes=tuple(notes))


def in_order_of(data: Dataset, classes: Sequence[str]) -> Dataset:
    """``data`` with its labels numbered as ``classes`` are; a class without an image may be among them.

    InputError where the data has images of a class that is not in ``classes``.
    """
    classes = tuple(classes)
    if classes == data.classes:
        return data
    unknown = [(name, int(n)) for name, n in zip(data.classes, data.counts, strict=True) if n and name not in classes]
    if unknown:
        name, n = unknown[0]
        raise InputError(
            f"{data.name} has {n} image{'' if n == 1 else 's'} {'with finding' if data.multilabel else 'of class'} "
            f"{name!r}, which the classifier does not know; it knows {listed(classes)}. Map the name with --map "
            f"{name}={_nearest(name, classes, data.classes)}, or leave {'it' if data.multilabel else 'these images'} "
            f"out with --leave-out {name}"
        )
    if data.multilabel:
        return findings.in_order_of(data, classes)
    place = {name: number for number, name in enumerate(classes)}
    labels = np.array([place[data.classes[label]] for label in data.labels.tolist()], dtype=np.int64)
    return dataclasses.replace(data, classes=classes, labels=labels)


def _nearest(name: str, classes: Sequence[str], taken: Sequence[str]) -> str:
    """The class that the name probably means, for the message alone."""
    same = [c for c in classes if c.strip().casefold() == name.strip().casefold()]
    free = [c for c in classes if c not in taken]
    return (same or free or list(classes))[0]
