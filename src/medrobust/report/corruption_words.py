"""What is said of natural corruptions beside an attack: each sentence a function of the accuracies."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.comparison import Relation, Share, in_words, numbers, relation
from medrobust.report.words import plural


@dataclass(frozen=True)
class BesideCorruptions:
    """Accuracy before, under the corruption of ``count`` that leaves least at a severity, and under an attack.

    name: of that corruption. attack: None where none of the size was measured.
    """

    before: Share
    name: str
    worst: Share
    count: int
    severity: int
    attack: Share | None

    @property
    def relation(self) -> Relation:
        """BELOW: the attack leaves less than the worst corruption does."""
        return Relation.NO_CONTROL if self.attack is None else relation(self.attack, self.worst)


def beside_attack(shares: BesideCorruptions, size: str) -> tuple[str, bool]:
    """Sentences, and whether they are a warning."""
    harms = relation(shares.worst, shares.before) is Relation.BELOW
    text = (
        f"Of {plural(shares.count, 'natural corruption')} at severity {shares.severity} of 5, “{shares.name}” leaves "
    )
    text += f"least: {in_words(shares.worst)} correct; before it was {numbers(shares.before)}. "
    if not shares.worst.ok:
        return text + "What corruptions cost is inconclusive.", True
    if not harms:
        text += "That is not shown to do harm. "
    if shares.attack is None:
        return text + "No attack was measured beside it.", harms
    text += f"The attack, with changes of at most {size}, leaves {numbers(shares.attack)}. "
    if not shares.attack.ok:
        return text + "What the attack leaves is inconclusive.", True
    if shares.relation is Relation.BELOW:
        return text + "The attack does more harm than the worst of them.", False
    if shares.relation is Relation.ABOVE:
        return (
            text
            + "The corruption does more harm than the attack: this classifier is unsteady even without an attacker.",
            True,
        )
    if not harms and relation(shares.attack, shares.before) is not Relation.BELOW:
        return text + "Nor is the attack shown to do harm.", False
    return text + "Which of the two does more harm cannot be told.", harms
