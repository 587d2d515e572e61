"""What adversarial training achieved and what it cost, in a sentence."""

from __future__ import annotations

from typing import NamedTuple

from medrobust.report.comparison import Relation, Share, relation
from medrobust.report.run import Run
from medrobust.report.schema import HardeningInfo
from medrobust.report.words import NBSP, bounds, number, percent, plural
from medrobust.results import Kind


class Hardened(NamedTuple):
    """attacked: accuracy under attack at the trained size, before and after; cost: change of clean accuracy.

    doubt: why they are not believed.
    """

    before: Share
    after: Share
    cost: Share
    size: str
    doubt: str = ""


def judged(one: Hardened) -> tuple[str, str, str]:
    """(title, text, tone) of a first page."""
    attacked, clean = plural(one.after.n, "image"), plural(one.cost.n, "image")
    text = f"Under attack at {one.size}, {_share(one.after)} of {attacked} are still read rightly; before the training "
    text += f"{_share(one.before)}. Without an attack, accuracy on {clean} changed by {_points(one.cost)}."
    if one.doubt:
        return "Inconclusive", f"{text} These numbers are not believed: {one.doubt}.", "warn"
    if (shown := relation(one.after, one.before)) is Relation.ABOVE:
        return "The classifier withstands more than before", text, "calm"
    if shown is Relation.BELOW:
        return "The classifier withstands less than before", text, "bad"
    return "No difference is shown", f"{text} The intervals overlap: more test images may tell.", "warn"


def of_run(run: Run) -> Hardened | None:
    """None where the numbers are still to come."""
    info = run.conditions.hardening
    if info is None:
        return None
    rows = [run.find(Kind.DEFENCE, "accuracy_attacked", eps=info.eps, round=r) for r in (0, 1)]
    cost = run.find(Kind.DEFENCE, "accuracy_change", round=1)
    before, after, change = (Share.of(row) for row in (*rows, cost))
    if before is None or after is None or change is None:
        return None
    size = run.conditions.grey_scale.text(info.eps) if run.conditions.norm == "Linf" else f"L2{NBSP}{number(info.eps)}"
    return Hardened(before, after, change, size, next((r.note for r in rows if r is not None and not r.ok), ""))


def epochs(info: HardeningInfo) -> str:
    """Which epoch is kept, of how many, and why there were fewer than planned."""
    trained = len(info.history)
    text = f"Epoch {info.epoch_kept} of {trained} is kept: the best under attack on validation images."
    if "test" in info.settings:
        text += f" Of the two BatchNorms of each layer, that of {info.settings['test']} images is kept."
    if trained == info.epochs:
        return text
    late = (
        info.minutes is not None
        and sum(h.get("seconds", 0) for h in info.history) + max(h.get("seconds", 0) for h in info.history)
        > 60 * info.minutes
    )
    why = f"another would not have ended within {info.minutes:g} minutes" if late else "further ones were no better"
    return f"{text} {info.epochs} were planned; {why}."


def verdict(run: Run) -> str:
    """For the terminal."""
    one = of_run(run)
    return "" if one is None else "{}. {}".format(*judged(one))


def _share(share: Share) -> str:
    return f"{percent(share.value)} {bounds(share.low, share.high)}"


def _points(change: Share) -> str:
    low, high = ("?" if end is None else f"{100 * end:+.1f}" for end in (change.low, change.high))
    return f"{100 * change.value:+.1f}{NBSP}points ({low} to {high})"
