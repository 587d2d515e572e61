"""What is said of an attacker who sees only a model's answers: each sentence a function of its numbers."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.comparison import Relation, Share, in_words, relation

HARD = 0.10
"""Share of images turned below which, by its interval, a model is said to be harder to fool from outside."""
NOT_TRIED = (
    "More questions find more, and a model that leaves the house with its product is no secret. Not tested: a copy "
    "trained to imitate the answers, {decisions}or an interface that counts how often nearly the same image is asked "
    "about."
)
DECISIONS = "an interface that gives the decision without scores, "


@dataclass(frozen=True)
class FromOutside:
    """answers: what is had of the model, "scores" or "decisions".

    Shares of correctly read images turned: by queries, by one who holds the model (on the same images), and by
    random changes of the same size."""

    queries: Share
    white: Share | None
    random: Share | None
    answers: str = "scores"


def compared(shares: FromOutside) -> str:
    """The controls of the share that queries turn."""
    parts = []
    if shares.random is not None:
        parts.append(f"Random changes of the same size turn {in_words(shares.random)}.")
    else:
        parts.append("Random changes of the same size were not measured beside it.")
    if shares.white is not None:
        parts.append(f"Whoever holds the model itself turns {in_words(shares.white, 'of the same images')}.")
    return " ".join(parts)


def meaning(shares: FromOutside) -> str:
    """What it means for a model behind an interface."""
    if not shares.queries.ok:
        return "No answer differed from that to the untouched image: this proves nothing, either way."
    if relation(shares.queries, shares.random) is not Relation.ABOVE:
        text = "That is not shown to be more than random changes do: queries are not shown to work at this size. "
    elif shares.queries.surely_below(HARD):
        text = f"A model of which nothing but its {shares.answers} can be had is much harder to fool at this size with "
        text += "so few questions. "
    elif shares.white is not None and relation(shares.queries, shares.white) is Relation.BELOW:
        text = "Keeping the model secret makes the attack dearer, not impossible. "
    elif shares.queries.surely_above(0.5):
        text = f"Keeping the model secret is no protection: its {shares.answers} are enough. "
    else:
        text = f"Its {shares.answers} are enough to turn some of the images. "
    return text + NOT_TRIED.format(decisions=DECISIONS if shares.answers == "scores" else "")
