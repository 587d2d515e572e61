"""Is the gradient that a cell's attacks follow that of its classifier? The check of an audit, once for a classifier."""

from __future__ import annotations

from collections.abc import Iterable

from medrobust.experiments import checks
from medrobust.experiments.gradient_check import compared, derived, gradient_check
from medrobust.experiments.system import unseen
from medrobust.experiments.work import Work
from medrobust.results import Rows, doubted
from medrobust.store import Result

DOUBT = "doubt"
"""The entry of a cell's facts that says why its attack is not believed, for cells that stand on it."""
SEED = 0
"""Of the images and directions, whatever the seed of a cell: its classifier is checked once."""


def gradient_doubt(work: Work, name: str = "model") -> str:
    """Why no attack on the classifier that the cell needs under that name is believed; empty where nothing says so.

    The check is made with images of the cell's data that the classifier has not seen, kept in the run folder for other
    cells, and goes with the cell's facts into results.json.
    """
    classifier = work.model(name)
    asked = {"kind": "gradient check", "model": work.ticket["needs"][name], "data": work.ticket["spec"]["data"]}

    def compute() -> Result:
        part, _ = unseen(work.data, classifier, trained=False)
        return derived(classifier, part.sample(compared(part), SEED), SEED)

    check = gradient_check(work.store.once(asked, compute))
    if check.plain() not in (made := work.checks.setdefault(name, [])):
        made.insert(0, check.plain())
    return checks.doubt([check])


def doubt_all(rows: Rows, why: str, but: Iterable[str] = ()) -> None:
    """Every row rests on the gradient, except those of the attacks named."""
    if why:
        rows.rows = doubted(rows.rows, why, attacks={r.attack for r in rows.rows} - set(but))
