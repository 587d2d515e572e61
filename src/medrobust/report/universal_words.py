"""What is said of one change for every image: each sentence a function of its numbers, each rate beside its control."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.comparison import Relation, Share, frequency, in_words, numbers, relation
from medrobust.report.words import count, plural

MUCH = 0.25
"""Share of the effect that random changes must stay below for the harm to be called that of the aim alone."""


@dataclass(frozen=True)
class Fooling:
    """Share of the images that get another answer, beside that under random changes of the same size.

    before, after: accuracy without and with the change.
    """

    rate: Share
    control: Share | None
    before: Share | None = None
    after: Share | None = None


def fooling(shares: Fooling) -> str:
    rate, control, against_control = shares.rate, shares.control, relation(shares.rate, shares.control)
    text = f"With it, {in_words(rate)} get another answer"
    if control is None:
        return text + "; no random change was measured beside it, so nothing follows about its aim."
    text += f"; with a random change of the same size, {in_words(control)} do. "
    if against_control is Relation.ABOVE:
        text += "So it is the aim of the change that does the harm"
        text += ", much less its size." if control.value < rate.value * MUCH else ", and partly its size."
    elif against_control is Relation.BELOW:
        text += "Random changes do more: this one was not found well."
    else:
        text += "That is not shown to be more than random changes do; a better method may find one that does more."
    if shares.before is not None and shares.after is not None:
        text += f" Of all images the model reads {frequency(shares.before, '')} correctly without it and "
        text += f"{frequency(shares.after, '')} with it ({numbers(shares.after)})."
    return text


@dataclass(frozen=True)
class Towards:
    """Of the images that were not read as ``called`` before, the share that is with the change made for it.

    control: of the same images, under random changes of the same size. hides: disease would be read as healthy.
    """

    called: str
    success: Share
    control: Share | None
    hides: bool = False


def towards(shares: Towards) -> str:
    text = f"Of the images that were not read as {shares.called}, a change made towards {shares.called} turns "
    text += f"{in_words(shares.success, '')} into it"
    if shares.control is None:
        return text + "; no random change was measured beside it, so nothing follows about its aim."
    text += f"; a random change of the same size turns {in_words(shares.control, '')}."
    against_control = relation(shares.success, shares.control)
    if against_control is Relation.ABOVE:
        return text + (" This is disease that is missed." if shares.hides else "")
    if against_control is Relation.BELOW:
        return text + " Random changes do more: this one was not found well."
    return text + " That is not shown to be more than random changes do."


def reached(every: list[Towards]) -> str:
    """How many of the goals are reached by more images than random changes reach."""
    above = sum(relation(t.success, t.control) is Relation.ABOVE for t in every)
    text = f"Of {plural(len(every), 'goal')}, {above or 'none'} {'is' if above == 1 else 'are'} reached "
    return text + "by more images than under random changes."


def after_saving(rate: Share, saved: Share, control: Share | None, bits: str) -> str:
    """What rounding leaves of it; nothing where there was no effect to keep."""
    if relation(rate, control) is not Relation.ABOVE:
        return ""
    text = f"Saved at {bits} bits, {in_words(saved, 'changed images')} still get another answer"
    if relation(saved, rate) is Relation.BELOW:
        return text + f": saving undoes {'part' if saved.value > rate.value / 2 else 'most'} of it."
    return text + (": saving is no cure." if relation(saved, control) is Relation.ABOVE else ".")


def majority_class(with_it: int, before: int, n: int, called: str) -> str:
    """Images of n that are read as one class."""
    text = f"Nearly all images end in one class: {count(with_it)} of {count(n)} are read as {called}, "
    return text + f"{count(before)} before."


def cap(most: Share) -> str:
    text = f"With two classes, sending all images into one of them changes at most {in_words(most)}; "
    return text + "only turning both ways gets beyond that."
