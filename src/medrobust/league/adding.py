"""Adding the classifiers of a run to a league table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medrobust.errors import InputError
from medrobust.league import table
from medrobust.league.reading import Found
from medrobust.league.table import Entry, ImageSet, League


class Added(NamedTuple):
    """league: with the entries that were not there. added, there: the classifiers of the run, new and known ones."""

    league: League
    added: tuple[Entry, ...]
    there: tuple[Entry, ...]


def add(league: League, found: Sequence[Found], where: Path) -> Added:
    """All classifiers of a run, or none. InputError, in one line, where one of them breaks a rule.

    An image set that the table does not hold is added with them. A classifier that is there with the same numbers is
    left as it is; with other numbers it is refused. where: the run, for messages.
    """
    sets, entries = list(league.sets), list(league.entries)
    added, there = [], []
    for entry, image_set in found:
        known = _known(sets, image_set, where)
        if known is None:
            sets.append(image_set)
            known = image_set
        entry = entry.model_copy(update={"image_set": known.name})
        try:
            table.check(entry, known)
        except ValueError as error:
            raise InputError(f"{where}: {error}") from None
        twin = next((e for e in entries if (e.image_set, e.model) == (entry.image_set, entry.model)), None)
        if twin is None:
            entries.append(entry)
            added.append(entry)
        elif twin.accuracy == entry.accuracy:
            there.append(twin)
        else:
            raise InputError(
                f"{where}: {entry.name} is in the table with other numbers, from run {twin.run}; one of the two is "
                "wrong: repeat it with the commands of its row"
            )
    return Added(League(sets=tuple(sets), entries=tuple(entries)), tuple(added), tuple(there))


def _known(sets: Sequence[ImageSet], new: ImageSet, where: Path) -> ImageSet | None:
    """The set of these images in the table; InputError where another set has its name, or its number of images."""
    for known in sets:
        if known.digest == new.digest:
            if (known.px, known.n_test) != (new.px, new.n_test):
                raise InputError(
                    f"{where}: {new.n_test} test images of {new.px} px, {known.name} has {known.n_test} of {known.px}; "
                    "leave none of them out"
                )
            return known
        if known.name == new.name:
            raise InputError(
                f"{where}: its images are not those of {known.name} in the table (SHA-256 {new.digest[:12]}, not "
                f"{known.digest[:12]}): other files, labels, split or size; if they are another set, give --set NAME"
            )
    return None
