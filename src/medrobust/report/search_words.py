"""What a comparison of searches says, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from medrobust.report.searched import MAIN, AttackedNetwork, Searched
from medrobust.report.words import NBSP, bounds, listing, plural, with_interval
from medrobust.results import Row

FREE = {
    "weights": "all weights of a network with one hidden layer of 8 tanh units",
    "masks": "a yes or no for each feature; what is kept goes into a logistic regression",
    "hyper": "weight decay, learning rate, hidden units and principal components of a network trained by Adam",
    "threshold": "how far each class's logit is moved before the largest decides",
}
OBJECTS = {
    "weights": "such networks",
    "masks": "the choice of features",
    "hyper": "hyper-parameters",
    "threshold": "the threshold",
}
ALPHA = 0.05
LEAST_SEEDS = 6
"""Fewer, and no outcome of the signed ranks has p < ALPHA."""


RELEVANT = 0.05
"""Balanced accuracy by which a search must beat the reference to matter; a comparison that could not have found as
much says nothing."""


class SearchVerdict(Enum):
    CONFIRMED = "confirmed"
    NOT_CONFIRMED = "not confirmed"
    CANNOT_SAY = "cannot say"


@dataclass(frozen=True)
class Compared:
    """Nature-inspired searches beside the reference on one question.

    better, worse, same: names of those told apart from it (p < ALPHA) and of the others. detectable: the smallest
    advantage that the comparison would have found with 80 % power, the largest over ``same``; None where it is not
    known. guesses: why the reference is no better than guessing, else empty.
    """

    better: list[str]
    worse: list[str]
    same: list[str]
    detectable: float | None
    guesses: str

    @property
    def total(self) -> int:
        return len(self.better) + len(self.worse) + len(self.same)

    @property
    def outcome(self) -> SearchVerdict:
        """Of the claim that nature-inspired search does better than the reference."""
        if self.guesses or not self.total:
            return SearchVerdict.CANNOT_SAY
        if self.better:
            return SearchVerdict.CONFIRMED
        result = not self.same or (self.detectable is not None and self.detectable <= RELEVANT)
        return SearchVerdict.NOT_CONFIRMED if result else SearchVerdict.CANNOT_SAY


def compared(result: Searched, p: str = "p") -> Compared:
    """p: "p" for the corrected test, "p_signed_ranks" for signed ranks over seeds."""
    rows = {name: row for name, row in result.differences() if result.methods[name].kind == "search"}
    apart = [name for name, row in rows.items() if float(row.get(p)) < ALPHA]
    better = [name for name in apart if (rows[name].value or 0) > 0]
    same = [name for name in rows if name not in apart]
    least = [rows[name].get("detectable") for name in same]
    known = [float(d) for d in least if d is not None]
    return Compared(
        better,
        [name for name in apart if name not in better],
        same,
        max(known) if known and len(known) == len(least) else None,
        result.info.reference_guesses,
    )


def short(result: Searched) -> tuple[str, str]:
    """(tone, headline)."""
    return headline(compared(result), result.sentence_title(result.info.reference))


def headline(comparison: Compared, reference: str) -> tuple[str, str]:
    """(tone, headline) of a comparison."""
    if not comparison.total:
        return "warn", "No nature-inspired search was compared"
    if comparison.guesses:
        return "warn", f"Cannot say: {reference} does no better than guessing here"
    if comparison.better:
        return "calm", f"{len(comparison.better)} of {_searches(comparison.total)} beat {reference}"
    if comparison.outcome is SearchVerdict.CANNOT_SAY:
        return "warn", f"Cannot say whether a nature-inspired search beats {reference}: the comparison is too small"
    if comparison.worse:
        return (
            "warn",
            f"No nature-inspired search beats {reference}, {len(comparison.worse)} of {comparison.total} do worse",
        )
    return "warn", f"No nature-inspired search beats {reference} by {points(RELEVANT)} or more"


def claimed(comparison: Compared, what: str, reference: str, better: list[str], evaluations: int) -> str:
    """Confirmed, not confirmed, or cannot be said. what: that is searched. better: titles of ``told.better``."""
    claim = f"That nature-inspired search significantly optimises {what}, measured against {reference} on the same "
    claim += f"budget of {plural(evaluations, 'evaluation')}:"
    if comparison.guesses:
        return f"{claim} cannot say. {reference[:1].upper()}{reference[1:]} is {comparison.guesses}."
    if comparison.outcome is SearchVerdict.CONFIRMED:
        return f"{claim} confirmed for {len(comparison.better)} of {_searches(comparison.total)} ({listing(better)})."
    if comparison.outcome is SearchVerdict.NOT_CONFIRMED:
        text = f"{claim} not confirmed, for none of {_searches(comparison.total)}."
        if comparison.same and comparison.detectable is not None:
            text += f" An advantage of {points(comparison.detectable)} would have been found with 80{NBSP}% power."
        return text
    text = f"{claim} cannot say. None of {_searches(comparison.total)} is significantly better, but "
    if comparison.detectable is None:
        return text + "the comparison has no interval: its power is not known."
    text += f"only an advantage of {points(comparison.detectable)} or more would have been found with 80{NBSP}% power "
    return text + f"({points(RELEVANT)} would matter): more seeds, folds or images are needed."


def points(share: float) -> str:
    """0.05 -> "5 points"."""
    return f"{100 * share:.1f}".removesuffix(".0") + f"{NBSP}points"


def verdict(result: Searched) -> str:
    """What follows for the review's claim from these images. A paragraph."""
    values, outcome, title = result.values(MAIN), compared(result), result.sentence_title
    reference = title(result.info.reference)
    out = []
    if outcome.total:
        better = [title(name) for name in outcome.better]
        out.append(claimed(outcome, OBJECTS[result.question], reference, better, result.info.budget))
        if outcome.worse:
            out.append(f"{len(outcome.worse)} of {outcome.total} do worse.")
        if outcome.same:
            out.append(f"{len(outcome.same)} of {outcome.total} cannot be told apart from it.")
        if result.table.seeds >= LEAST_SEEDS:
            ranked = compared(result, "p_signed_ranks")
            counts = f"{len(ranked.better) or 'none'} better and {len(ranked.worse) or 'none'} worse"
            out.append(
                f"(A test that takes seeds for independent, which draws of the same images are not, calls {counts}.)"
            )
        best = max((n for n in values if result.methods[n].kind == "search"), key=lambda n: values[n])
        text = f"{title(best)}, reaches a balanced accuracy of {_balanced(result, best)}"
        text += f", {reference} {_balanced(result, result.info.reference)} (medians over "
        out.append(
            f"The best of them, {text}{plural(result.table.seeds, 'seed')}, intervals of draws, not of patients)."
        )
    for name, method in result.methods.items():
        if method.kind in ("baseline", "random") and name != result.info.reference:
            other = title(name)
            out.append(f"{other[:1].upper()}{other[1:]}: {_balanced(result, name)}.")
    both = [n for n in values if result.methods[n].kind == "both"]
    if both:
        best = max(both, key=lambda n: values[n])
        out.append(f"Of the searches that gradient descent follows, {title(best)} reaches {_balanced(result, best)}.")
    return " ".join(out)


def _balanced(result: Searched, method: str) -> str:
    """Median over the seeds."""
    return with_interval(result.find(MAIN, method))


def robustness(networks: list[AttackedNetwork]) -> list[str]:
    """Are evolved networks more or less robust than gradient-trained ones of the same accuracy? Sentences."""
    ratios = [(network, network.find("ratio")) for network in networks]
    return [_ratio(network.name, row) for network, row in ratios if row is not None]


def _ratio(name: str, row: Row) -> str:
    if row.value is None or row.low is None or row.high is None:
        return f"{name}: inconclusive; too few attacks on it and its control say anything."
    if not row.ok:
        return f"{name}: inconclusive; {row.note}."
    interval = bounds(row.low, row.high, 2, 1).strip("()")
    text = f"{row.value:.2f} times the change ({interval}, {plural(row.n, 'image')}; {by_seed(row)})"
    if row.get("left_out"):
        text += f", {plural(row.get('left_out'), 'inconclusive attack')} left out,"
    text = f"it takes {text} that its gradient-trained control takes."
    if row.low <= 1 <= row.high:
        return f"{name}: no difference shown; {text}"
    if len({r > 1 for r in row.get("by_seed") if r is not None}) > 1:
        return f"{name}: no difference that all seeds show; {text}"
    return f"{name}: {'more' if row.value > 1 else 'less'} robust; {text}"


def by_seed(row: Row) -> str:
    """The ratio of each seed."""
    return "by seed " + ", ".join("–" if r is None else f"{r:.2f}" for r in row.get("by_seed"))


def p_value(p: float) -> str:
    """ "0.031"."""
    return "<" + NBSP + "0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _searches(n: int) -> str:
    return plural(n, "nature-inspired search", "nature-inspired searches")
