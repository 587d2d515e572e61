"""What is said of a patch or a change of few parameters beside its controls: a function of what they turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medrobust.report.comparison import Relation, Share, in_words, relation
from medrobust.report.words import listing, with_interval

CONTROLS = {"random": "drawn at random", "noise patch": "filled with noise", "bright patch": "filled with white"}


@dataclass(frozen=True)
class BesideControls:
    """Of the images read correctly, the share that a change turns, and those that its controls turn, by their names.

    range: what the change was allowed to do.
    """

    range: str
    turned: Share
    controls: Mapping[str, Share]


def beside_controls(shares: BesideControls) -> str:
    """A sentence or two."""
    allowed = shares.range[:1].upper() + shares.range[1:]
    text = f"{allowed}: {in_words(shares.turned)} of those read correctly are read otherwise"
    measured = [f"{CONTROLS.get(name, name)} {with_interval(share)}" for name, share in shares.controls.items()]
    text += f"; {listing(measured)}." if measured else "."
    if not shares.turned.ok:
        return f"{text} Inconclusive."
    relations = [relation(shares.turned, control) for control in shares.controls.values()]
    if not relations:
        return text
    if Relation.BELOW in relations:
        return f"{text} The search did less than chance: it failed."
    if set(relations) == {Relation.ABOVE}:
        return f"{text} The attack's choice does more than chance."
    return f"{text} That the attack's choice does more than chance is not shown."
