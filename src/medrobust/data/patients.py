"""Which column names the patients, and which cells name nobody."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

import medrobust.data.words as words
from medrobust.errors import InputError

NO_COLUMN = "none"
"""``--patient none``: no column is used."""

CERTAIN = frozenset(
    f"{who}{what}"
    for who in ("patient", "pat", "subject", "subj", "participant", "mrn")
    for what in ("", "id", "ids", "no", "nr", "num", "number", "code", "key", "index", "identifier")
) - {"pat"} | {"pid"}
"""Column names, as ``words.bare`` writes them, that mean patients."""

LIKELY = frozenset(
    f"{who}{what}" for who in ("case", "person", "individual", "client") for what in ("", "id", "no", "nr", "number")
)
"""The same, where the column has many values: a column "case" may also say case or control."""

HINTS = ("patient", "subject", "participant", "person", "case", "lesion", "study", "series", "exam", "visit", "mrn")


CODE = re.compile(r"(?=.*[A-Za-z])[A-Za-z_-]*\d+[A-Za-z0-9_-]*")
"""Letters and digits, as in P012: the form of an id."""


def find_column(
    name: str, columns: Mapping[str, Sequence[str]], wanted: str | None
) -> tuple[str | None, tuple[str, ...]]:
    """The column of patients among ``columns`` (name to cells; those used otherwise are not among them), and notes.

    wanted: the column that the user named; NO_COLUMN for none; None to find it by its name. InputError where the
    named one is not there, or where two would do and group the images differently.
    """
    if wanted is not None and wanted not in columns and wanted.casefold() == NO_COLUMN:
        return None, ("No column was used as patients, as asked: every image counts as independent.",)
    if wanted is not None:
        return _named(name, columns, wanted), ()
    certain = [column for column in columns if words.bare(column) in CERTAIN]
    likely = [column for column in columns if words.bare(column) in LIKELY]
    notes = []
    candidates = certain
    if not certain:
        for column in likely:
            if _values(columns[column]) > 2:
                candidates.append(column)
            else:
                notes.append(
                    f"The column {words.quoted(column)} has {_values(columns[column])} values only and was not taken "
                    f"for patients; to use it: --patient {words.quoted(column)}."
                )
    if len({_grouping(columns[column]) for column in candidates}) > 1:
        raise InputError(
            f"{name} has {len(candidates)} columns that may name the patients, "
            f"{', '.join(map(words.quoted, candidates))}, which group the images differently; name the right one: "
            f"--patient {words.quoted(candidates[0])} (or none)"
        )
    if candidates:
        return candidates[0], tuple(notes)
    for column, cells in columns.items():
        if column not in likely and _looks_like_ids(column, cells):
            notes.append(
                f"No column was used as patients, but {words.quoted(column)} looks like ids that group images "
                f"({_values(cells)} values in {len(cells)} rows); to keep each on one side of the split: "
                f"--patient {words.quoted(column)}."
            )
    return None, tuple(notes)


def named(cells: Sequence[str]) -> list[str]:
    """The patient of each image, "" where the cell names nobody."""
    tidied = [words.tidy(cell) for cell in cells]
    return ["" if word.casefold() in words.NOBODY else word for word in tidied]


def counted(patients: np.ndarray) -> str:
    """How many patients, and how many images have none."""
    without = int((patients == "").sum())
    text = f"{np.unique(patients[patients != '']).size} patients in {patients.size} images"
    if without:
        text += f"; {without} images have no patient and count as independent"
    return text


def _named(name: str, columns: Mapping[str, Sequence[str]], wanted: str) -> str:
    if wanted in columns:
        return wanted
    same = [column for column in columns if words.bare(column) == words.bare(wanted)]
    if len(same) == 1:
        return same[0]
    raise InputError(
        f"{name} has no column {words.quoted(wanted)} for the patients, only {', '.join(map(words.quoted, columns))}; "
        "name one of them with --patient, or none"
    )


def _values(cells: Sequence[str]) -> int:
    return len(set(named(cells)) - {""})


def _grouping(cells: Sequence[str]) -> tuple[int, ...]:
    """The number of the first row that has the same patient, for each row: equal for columns that group alike."""
    first: dict[str, int] = {}
    return tuple(row if not patient else first.setdefault(patient, row) for row, patient in enumerate(named(cells)))


def _looks_like_ids(column: str, cells: Sequence[str]) -> bool:
    """Many values, each of which may repeat, under a name or in a form that ids have."""
    given = [word for word in named(cells) if word]
    many = max(3, len(given) / 20) <= len(set(given)) < len(given)
    if not many:
        return False
    bare = words.bare(column)
    if any(hint in bare for hint in HINTS) or (bare.endswith("id") and bare != "id"):
        return True
    return (
        sum(bool(re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z_-]*\d+[A-Za-z0-9_-]*", word)) for word in given) > len(given) / 2
    )
