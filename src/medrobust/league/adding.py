"""Adding the classifiers of a run to a league table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medrobust.errors import InputError
from medrobust.league import table
from medrobust.league.reading import Found, Refused
from medrobust.league.table import Entry, ImageSet, League


class Added(NamedTuple):
    """league: with the entries that were not there. added, there: the classifiers of the run, new and known ones.

    refused: why others are not in the table, a line each.
    """

    league: League
    added: tuple[Entry, ...]
    there: tuple[Entry, ...]
    refused: tuple[str, ...]


def add(league: League, found: Sequence[Found | Refused], where: Path) -> Added:
    """Every classifier of a run that keeps the rules.

    An image set that the table does not hold is added with it. A classifier that is there with the same numbers is
    left as it is; with other numbers it is refused. where: the run, for messages.
    """
    added: list[Entry] = []
    there: list[Entry] = []
    refused: list[str] = []
    for one in found:
        if isinstance(one, Refused):
            refused.append(one.why)
            continue
        try:
            grown, entry = _with(league, one, where)
        except InputError as error:
            refused.append(str(error))
            continue
        (there if grown is league else added).append(entry)
        league = grown
    return Added(league, tuple(added), tuple(there), tuple(refused))


def _with(league: League, found: Found, where: Path) -> tuple[League, Entry]:
    """The table with an entry, and that entry; the same table where it is there. InputError where it breaks a rule."""
    known = _known(league.sets, found.image_set, where)
    sets = league.sets if known else (*league.sets, found.image_set)
    image_set = known or found.image_set
    entry = found.entry.model_copy(update={"image_set": image_set.name})
    try:
        table.check(entry, image_set)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None
    twin = next((e for e in league.entries if (e.image_set, e.model) == (entry.image_set, entry.model)), None)
    if twin is None:
        return League(sets=sets, entries=(*league.entries, entry)), entry
    if twin.accuracy == entry.accuracy:
        return league, twin
    raise InputError(
        f"{where}: {entry.name} is in the table with other numbers, from run {twin.run}; one of the two is wrong: "
        "repeat it with the commands of its row"
    )


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
