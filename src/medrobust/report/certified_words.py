"""What is said of proofs beside attacks: each sentence a function of the shares."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.comparison import Share, numbers
from medrobust.report.words import NBSP, bounds, count, listing, percent


@dataclass(frozen=True)
class BothSides:
    """Accuracy that is proved, and that attacks leave, at one size on the same images. attacked: None where no attack
    was measured at it."""

    proved: Share
    attacked: Share | None


def between(sides: BothSides, size: str) -> tuple[str, bool]:
    """A sentence or two, and whether they are a warning."""
    low, high, n = sides.proved, sides.attacked, f"n{NBSP}={NBSP}{count(sides.proved.n)}"
    proved = f"{percent(low.value)} (proved; {_interval(low)})"
    if high is None:
        return f"Against changes of at most {size} the accuracy is at least {proved}, {n}.", False
    if low.value > high.value:
        text = f"At {size} {proved} is more than the {percent(high.value)} that an attack leaves, {n}: one of the two"
        return f"{text} is wrong. Neither is believed.", True
    text = f"Against changes of at most {size} the accuracy lies between {proved} and "
    text += f"{percent(high.value)} (attacked; {_interval(high)}), on the same images, {n}."
    if not low.ok or not high.ok:
        doubtful = "both numbers are" if not low.ok and not high.ok else f"the {'lower' if high.ok else 'upper'} one is"
        return f"{text} Inconclusive: {doubtful} in doubt.", True
    if low.value == high.value:
        return f"{text} No attack can leave less.", False
    if not low.hits:
        return f"{text} That nothing is proved at this size is no sign of weakness.", False
    return text, False


def smoothed(
    clean: Share, abstained: Share, proved: list[tuple[Share, str]], sigma: float, draws: int
) -> tuple[str, bool]:
    """The smoothed classifier in a few sentences, and whether they are a warning. clean, abstained: without an attack;
    proved: shares with their sizes."""
    text = f"Smoothed with noise of standard deviation {sigma:g} (the majority of {count(draws)} noisy copies of an "
    text += f"image), it reads {numbers(clean)} correctly and abstains on {numbers(abstained)}. "
    every = [f"{numbers(share)} against changes of at most {size}" for share, size in proved]
    text += f"Proved are {listing(every)}. This is another classifier than the one that was attacked."
    doubtful = not all(share.ok for share in (clean, abstained, *(share for share, _ in proved)))
    return f"{text} Inconclusive." if doubtful else text, doubtful


def _interval(share: Share) -> str:
    return f"95{NBSP}% interval {bounds(share.low, share.high).strip('()')}"
