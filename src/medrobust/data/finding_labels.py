"""From cells of a table to several findings an image: one 0/1 column a finding, or one column of sets, ``a|b``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

import medrobust.data.words as words
from medrobust.data.csv_rows import Cells
from medrobust.data.findings import NO_FINDING
from medrobust.data.labels import number_classes
from medrobust.errors import InputError
from medrobust.images import UNKNOWN

SEPARATORS = ("|", ";")
"""Separators of findings that are recognised; any other one must be given."""
NO_SEPARATOR = "none"
"""``--separator none``: a label is one class, whatever signs are in it."""


def of_columns(name: str, cells: Cells, columns: Sequence[str]) -> list[str]:
    """One label a row: "1", "0" or "?" (unknown: blank, NaN or -1) for each column, with blanks between.

    InputError for any other value, with its line.
    """
    return [
        " ".join(_value(name, line, column, cell) for column, cell in zip(columns, row, strict=True))
        for line, row in zip(cells.lines, zip(*map(cells.column, columns), strict=True), strict=True)
    ]


def matrix(labels: Sequence[str]) -> np.ndarray:
    """int64 (n, k) of labels that ``of_columns`` wrote."""
    value = {"1": 1, "0": 0, "?": UNKNOWN}
    return np.array([[value[word] for word in label.split()] for label in labels], dtype=np.int64)


def _value(name: str, line: int, column: str, cell: str) -> str:
    number = words.number(words.tidy(cell))
    if words.is_missing(cell) or number == UNKNOWN:
        return "?"
    if number not in (0, 1):
        raise InputError(
            f"line {line} of {name} has {words.quoted(cell)} in the column {words.quoted(column)} of a finding; write "
            "1 (present), 0 (absent), or -1 or nothing (unknown)"
        )
    return str(int(number))


def separator_of(labels: Sequence[str], wanted: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The separator of findings in a label column, None where each label is one class; and notes on that choice.

    wanted: as given; None looks for one of SEPARATORS. It is one where the parts of every label that holds it are
    labels of other images by themselves; of three or more such labels, two in three parts suffice.
    """
    if wanted is not None:
        return (None if wanted.casefold() == NO_SEPARATOR else wanted), ()
    distinct = {words.tidy(label) for label in labels}
    for separator in SEPARATORS:
        several = [_parts(label, separator) for label in distinct if separator in label]
        if not several:
            continue
        atoms = {part for parts in several for part in parts}
        alone = len(atoms & {label.casefold() for label in distinct})
        proper = all(len(parts) > 1 and "" not in parts and len(set(parts)) == len(parts) for parts in several)
        if proper and (alone == len(atoms) or (len(several) > 2 and 3 * alone >= 2 * len(atoms))):
            note = f"Labels are sets of findings, separated by {separator} (--separator none: each is one class)."
            return separator, (note,)
        example = next(label for label in sorted(distinct) if separator in label)
        note = f"A label such as {words.quoted(example)} is one class; if it is a set of findings: --separator"
        return None, (f"{note} '{separator}'.",)
    return None, ()


def of_sets(name: str, labels: Sequence[str], separator: str) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """The findings that occur, int64 (n, k), and notes. NA and the like: all findings of the image are unknown."""
    sets = [[words.tidy(part) for part in label.split(separator)] for label in labels]
    sets = [[part for part in parts if part] for parts in sets]
    missing = [len(parts) == 1 and words.is_missing(parts[0]) for parts in sets]
    nothing = [not parts or (len(parts) == 1 and words.bare(parts[0]) in NO_FINDING) for parts in sets]
    for label, parts in zip(labels, sets, strict=True):
        if len(parts) > 1 and any(words.bare(part) in NO_FINDING for part in parts):
            raise InputError(f"{name} has the label {words.quoted(label)}: no finding and a finding; write one of them")
    held = [[] if none or gone else parts for parts, none, gone in zip(sets, nothing, missing, strict=True)]
    atoms = [part for parts in held for part in parts]
    classes, numbers, notes = number_classes(name, atoms)
    out = np.zeros((len(labels), len(classes)), dtype=np.int64)
    rows = [row for row, parts in enumerate(held) for _ in parts]
    out[rows, numbers] = 1
    out[np.array(missing)] = UNKNOWN
    written = Counter(words.tidy(label) for label, none in zip(labels, nothing, strict=True) if none)
    if written:
        how = ", ".join("blank" if not label else words.quoted(label) for label in sorted(written))
        notes = (*notes, f"{written.total()} images have no finding (label {how}).")
    return classes, out, notes


def _parts(label: str, separator: str) -> list[str]:
    return [part.strip().casefold() for part in label.split(separator)]
