"""What is said of a detector: each sentence a function of its numbers, each rate beside its control."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.comparison import Relation, Share, in_words, relation

ALLOWED = 0.05
"""False alarms that the threshold was set for."""


@dataclass(frozen=True)
class DetectionRate:
    """Share of attacked images that raise an alarm; alarms: of clean images that did not set the threshold."""

    rate: Share
    alarms: Share | None

    @property
    def sees(self) -> bool:
        """It raises an alarm more often on attacked images than on clean ones."""
        return self.rate.ok and relation(self.rate, self.alarms) is Relation.ABOVE


def seen(shares: DetectionRate) -> str:
    text = f"It raises an alarm on {in_words(shares.rate, 'attacked images')} if the attacker does not know it"
    if shares.alarms is None:
        return text + "; false alarms on clean images were not measured, so nothing follows."
    text += f", and on {in_words(shares.alarms, 'clean images')} that did not set its threshold (5 in 100 are "
    text += "allowed). "
    if shares.sees:
        text += "So it sees the plain attack more often than it raises false alarms."
    elif relation(shares.rate, shares.alarms) is Relation.BELOW:
        text += "Clean images raise more alarms: it does not see even the plain attack."
    else:
        text += "That is not shown to be more often: it is not shown to see even the plain attack."
    if shares.alarms.surely_above(ALLOWED):
        text += " There are more false alarms than promised: the images that set the threshold differ from these."
    return text


@dataclass(frozen=True)
class EvasionRates:
    """Share of images on which the model is fooled without an alarm, by the plain attack and by one that knows the
    detector, on the same images."""

    seen: DetectionRate
    plain: Share
    knowing: Share

    @property
    def no_protection(self) -> bool:
        """It sees plain attacks, and most images get past it once the attacker knows it."""
        return self.seen.sees and self.knowing.ok and self.knowing.surely_above(0.5)


def evaded(shares: EvasionRates, title: str) -> str:
    text = f"The plain attack fools the model without an alarm on {in_words(shares.plain)}; an attacker who knows the "
    text += f"detector ({title}, changes of the same size) does so on {in_words(shares.knowing)}. "
    if not shares.seen.sees:
        return text + "As it is not shown to see plain attacks, there is nothing to evade."
    if shares.no_protection:
        return text + "So this detector is no protection against someone who knows it."
    if not shares.knowing.ok or shares.knowing.value < 0.5:
        return text + "The attempt was short; that it fails on an image does not show that a longer one would."
    return text + "More images would have to be tried to tell whether most get past it."
