"""What is said of an attack beside random noise of the same size: each sentence a function of the three accuracies."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.comparison import Relation, Share, in_words, numbers, relation
from medrobust.report.words import with_interval

SMALL = 0.05
"""Points of accuracy that noise may cost without being said to do harm."""


@dataclass(frozen=True)
class BesideNoise:
    """Accuracy before, under the attack, and under random noise of the same size: of two kinds the one that leaves
    least. None where no noise was measured."""

    before: Share
    attack: Share
    noise: Share | None

    @property
    def relation(self) -> Relation:
        """BELOW: the attack leaves less than noise does."""
        return relation(self.attack, self.noise)

    @property
    def noise_harms(self) -> bool:
        return self.noise is not None and relation(self.noise, self.before) is Relation.BELOW


def beside(shares: BesideNoise) -> str:
    """The control in half a sentence, after what the attack leaves."""
    if shares.noise is None:
        return "no random noise of that size was measured beside it"
    text = f"random noise of that size leaves {with_interval(shares.noise)}"
    if shares.relation is Relation.ABOVE:
        return text + " and does more harm than the attack"
    return text + ("" if shares.relation is Relation.BELOW else ", which is not shown to be more")


def against_noise(shares: BesideNoise, size: str) -> tuple[str, bool]:
    """A paragraph, and whether it is a warning. A noise must have been measured."""
    assert shares.noise is not None
    text = f"Random noise of the same size ({size}) leaves {in_words(shares.noise)} correct; before it was "
    text += f"{numbers(shares.before)}; under the attack {numbers(shares.attack)}. "
    lost, attacked = (shares.before.value - share.value for share in (shares.noise, shares.attack))
    if shares.relation is Relation.ABOVE:
        return text + "Noise does more harm than the attack, which was not found well.", True
    if shares.relation is not Relation.BELOW:
        if shares.noise_harms:
            return text + "Noise alone does harm, and the attack is not shown to do more.", True
        if relation(shares.attack, shares.before) is not Relation.BELOW:
            return text + "At this size neither noise nor the attack is shown to do harm.", False
        return text + "The attack is not shown to do more harm than noise of its size.", True
    if lost < SMALL:
        return text + "So it is not the size of the change that does the harm, but its aim.", False
    if lost >= attacked / 2:
        return text + "Noise alone does much of the harm: this classifier is unsteady even without an attacker.", True
    return text + "Most of the harm comes from the aim of the change, some of it from its size.", False
