"""From the words of a label column to class names and numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal

import numpy as np

import medrobust.data.words as words
from medrobust import limits
from medrobust.errors import InputError

NO_LABEL = "it has no label"
MEASURED = 20
"""More labels than this that are numbers with fractions are measurements, no classes."""
NONE = -1
"""The class number of an image without a label."""

Numbered = tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]
"""Class names in order; int64 (n,), NONE where there is no label; notes."""


def number_classes(name: str, labels: Sequence[str], classes: tuple[str, ...] | None = None) -> Numbered:
    """The classes of ``labels``. InputError if more than half have none, or if there are not two classes.

    classes: names and order where the source fixes them. Otherwise spellings that differ in case, white space or
    Unicode form only are one class, and so are equal numbers ("1" and "1.0") where all labels are numbers; the class
    has the most frequent spelling. Numbers in names are sorted as numbers.
    """
    if classes is not None:
        place = {word: number for number, word in enumerate(classes)}
        numbers = [NONE if words.is_missing(word) and word not in place else place[word] for word in labels]
        _check_some(name, numbers)
        return classes, np.array(numbers, dtype=np.int64), ()
    spellings = Counter(labels)
    tidied = {raw: words.tidy(raw) for raw in spellings}
    named = {raw: word for raw, word in tidied.items() if not words.is_missing(word)}
    for word in named.values():
        limits.check(limits.NAME, len(word), f"the label {words.quoted(word)} of {name}")
    groups = _same(named)
    _check_classes(name, groups)
    limits.check(limits.CLASSES, len(groups), name)
    spelling = {key: _usual(group, spellings, tidied) for key, group in groups.items()}
    order = sorted(groups, key=lambda key: _rank(spelling[key], groups))
    number = {raw: position for position, key in enumerate(order) for raw in groups[key]}
    numbers = [number.get(raw, NONE) for raw in labels]
    _check_some(name, numbers)
    names = tuple(spelling[key] for key in order)
    if len(names) < 2:
        only = f"only {words.quoted(names[0])}" if names else "none"
        raise InputError(f"{name} must have images of at least two classes, found {only}")
    return names, np.array(numbers, dtype=np.int64), _notes(names, order, groups, spellings, tidied)


def _same(named: dict[str, str]) -> dict[object, list[str]]:
    """The raw spellings of each class."""
    numbers = {raw: words.number(word) for raw, word in named.items()}
    all_numbers = all(value is not None for value in numbers.values())
    groups: dict[object, list[str]] = {}
    for raw, word in sorted(named.items()):
        # a single letter may well be another class than its capital
        key: object = numbers[raw] if all_numbers else word if len(word) == 1 else word.casefold()
        groups.setdefault(key, []).append(raw)
    return groups


def _check_classes(name: str, groups: Mapping[object, list[str]]) -> None:
    """InputError for measurements: numbers with fractions, of which there are many."""
    numbers = [key for key in groups if isinstance(key, Decimal)]
    if len(numbers) > MEASURED and len(numbers) == len(groups) and any(n != n.to_integral_value() for n in numbers):
        raise InputError(
            f"the labels of {name} are {len(numbers)} numbers from {min(numbers)} to {max(numbers)}: regression is not "
            "covered; write classes, grades or findings, for example above and below a threshold"
        )


def _usual(group: list[str], spellings: Counter[str], tidied: dict[str, str]) -> str:
    counts: Counter[str] = Counter()
    for raw in group:
        counts[tidied[raw]] += spellings[raw]
    return min(counts, key=lambda word: (-counts[word], word))


def _rank(word: str, groups: dict[object, list[str]]) -> tuple[object, ...]:
    """Numbers by their value where all classes are numbers, else words with the numbers in them."""
    if all(not isinstance(key, str) for key in groups):
        return (words.number(word), word)
    return words.natural(word)


def _check_some(name: str, numbers: Sequence[int]) -> None:
    missing = sum(number == NONE for number in numbers)
    if 2 * missing > len(numbers):
        raise InputError(
            f"{missing} of the {len(numbers)} images of {name} have no label (blank, NA, nan or null); "
            "choose another column with label=, or write the labels in"
        )


def _notes(
    names: tuple[str, ...],
    order: list[object],
    groups: dict[object, list[str]],
    spellings: Counter[str],
    tidied: dict[str, str],
) -> tuple[str, ...]:
    """A sentence on each class that has several spellings, and on labels that hardly repeat."""
    notes = []
    for key, name in zip(order, names, strict=True):
        others = sorted({raw.strip(" ") for raw in groups[key]} - {name})
        if others:
            count = sum(spellings[raw] for raw in groups[key] if raw.strip(" ") != name)
            some = ", ".join(words.quoted(raw) for raw in others[:3]) + (" …" if len(others) > 3 else "")
            notes.append(f"{count} labels written {some} were read as the class {words.quoted(name)}.")
        elif len(groups[key]) > 1:
            count = sum(spellings[raw] for raw in groups[key] if raw != name)
            notes.append(f"{count} labels with blanks around them were read as the class {words.quoted(name)}.")
    labelled = sum(spellings[raw] for raw in tidied if raw in {r for group in groups.values() for r in group})
    if len(names) > max(20, labelled // 2):
        notes.append(f"{labelled} images have {len(names)} classes: is that the column of the label?")
    return tuple(notes)
