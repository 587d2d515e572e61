"""What a comparison of searches says, in plain words."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from medrobust.report.words import NBSP, listing, percent, plural

TITLES = {
    "weights": "Weights of the network",
    "masks": "Which features to keep",
    "hyper": "Hyper-parameters and hidden size",
    "threshold": "Decision threshold",
}
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


class Outcome(Enum):
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
    def outcome(self) -> Outcome:
        """Of the claim that nature-inspired search does better than the reference."""
        if self.guesses or not self.total:
            return Outcome.CANNOT_SAY
        if self.better:
            return Outcome.CONFIRMED
        found = not self.same or (self.detectable is not None and self.detectable <= RELEVANT)
        return Outcome.NOT_CONFIRMED if found else Outcome.CANNOT_SAY


def compared(results: dict[str, Any], question: str, p: str = "p") -> Compared:
    """p: "p" for the corrected test, "p_wilcoxon" for signed ranks over seeds."""
    told = results["questions"][question]
    against = {
        n: told["against"][n] for n, m in told["methods"].items() if m["kind"] == "search" and n in told["against"]
    }
    apart = [n for n, a in against.items() if a[p] < ALPHA]
    better = [n for n in apart if against[n]["difference"] > 0]
    same = [n for n in against if n not in apart]
    least = [against[n].get("detectable") for n in same]
    known = [d for d in least if d is not None]
    return Compared(
        better,
        [n for n in apart if n not in better],
        same,
        max(known) if known and len(known) == len(least) else None,
        told.get("reference_guesses", ""),
    )


def short(results: dict[str, Any], question: str) -> tuple[str, str]:
    """(tone, headline)."""
    return headline(compared(results, question), _title(results, question, results["questions"][question]["reference"]))


def headline(told: Compared, reference: str) -> tuple[str, str]:
    """(tone, headline) of a comparison."""
    if not told.total:
        return "warn", "No nature-inspired search was compared"
    if told.guesses:
        return "warn", f"Cannot say: {reference} does no better than guessing here"
    if told.better:
        return "calm", f"{len(told.better)} of {_searches(told.total)} beat {reference}"
    if told.outcome is Outcome.CANNOT_SAY:
        return "warn", f"Cannot say whether a nature-inspired search beats {reference}: the comparison is too small"
    if told.worse:
        return "warn", f"No nature-inspired search beats {reference}, {len(told.worse)} of {told.total} do worse"
    return "warn", f"No nature-inspired search beats {reference} by {points(RELEVANT)} or more"


def claimed(told: Compared, what: str, reference: str, better: list[str], evaluations: int) -> str:
    """Confirmed, not confirmed, or cannot be said. what: that is searched. better: titles of ``told.better``."""
    claim = f"That nature-inspired search significantly optimises {what}, measured against {reference} on the same "
    claim += f"budget of {plural(evaluations, 'evaluation')}:"
    if told.guesses:
        return f"{claim} cannot say. {reference[:1].upper()}{reference[1:]} is {told.guesses}."
    if told.outcome is Outcome.CONFIRMED:
        return f"{claim} confirmed for {len(told.better)} of {_searches(told.total)} ({listing(better)})."
    if told.outcome is Outcome.NOT_CONFIRMED:
        text = f"{claim} not confirmed, for none of {_searches(told.total)}."
        if told.same and told.detectable is not None:
            text += f" An advantage of {points(told.detectable)} would have been found with 80{NBSP}% power."
        return text
    text = f"{claim} cannot say. None of {_searches(told.total)} is told to be better, but "
    if told.detectable is None:
        return text + "the comparison has no interval: its power is not known."
    text += f"only an advantage of {points(told.detectable)} or more would have been found with 80{NBSP}% power "
    return text + f"({points(RELEVANT)} would matter): more seeds, folds or images are needed."


def points(share: float) -> str:
    """0.05 -> "5 points"."""
    return f"{100 * share:.1f}".removesuffix(".0") + f"{NBSP}points"


def verdict(results: dict[str, Any], question: str) -> str:
    """What follows for the review's claim from these images. A paragraph."""
    told, values = results["questions"][question], medians(results, question)
    found = compared(results, question)
    reference = _title(results, question, told["reference"])
    out = []
    if found.total:
        better = [_title(results, question, n) for n in found.better]
        evaluations = results["facts"]["budget"][question]
        out.append(claimed(found, OBJECTS[question], reference, better, evaluations))
        if found.worse:
            out.append(f"{len(found.worse)} of {found.total} do worse.")
        if found.same:
            out.append(f"{len(found.same)} of {found.total} cannot be told apart from it.")
        if results["facts"]["seeds"] >= LEAST_SEEDS:
            easy = compared(results, question, "p_wilcoxon")
            counts = f"{len(easy.better) or 'none'} better and {len(easy.worse) or 'none'} worse"
            out.append(
                f"(A test that takes seeds for independent, which draws of the same images are not, calls {counts}.)"
            )
        best = max((n for n in values if told["methods"][n]["kind"] == "search"), key=lambda n: values[n])
        text = f"{_title(results, question, best)}, reaches a balanced accuracy of {percent(values[best])}"
        out.append(f"The best of them, {text}, {reference} {percent(values[told['reference']])}.")
    for name, row in told["methods"].items():
        if row["kind"] in ("baseline", "random") and name != told["reference"]:
            title = _title(results, question, name)
            out.append(f"{title[:1].upper()}{title[1:]}: {percent(values[name])}.")
    both = [n for n in values if told["methods"][n]["kind"] == "both"]
    if both:
        best = max(both, key=lambda n: values[n])
        text = f"{_title(results, question, best)} reaches {percent(values[best])}"
        out.append(f"Of the searches that gradient descent follows, {text}.")
    return " ".join(out)


def robustness(told: dict[str, Any]) -> list[str]:
    """Are evolved networks more or less robust than gradient-trained ones of the same accuracy? Sentences."""
    out = []
    for row in told["rows"]:
        ratio = row.get("ratio")
        if not ratio:
            continue
        if ratio.get("doubt"):
            out.append(f"{row['network']}: inconclusive; {ratio['doubt']}.")
            continue
        if ratio["low"] is None:
            out.append(f"{row['network']}: inconclusive; too few attacks on it and its twin say anything.")
            continue
        name, n = row["network"], plural(ratio["n"], "image")
        seen = f"{ratio['value']:.2f} times the change ({ratio['low']:.2f}–{ratio['high']:.2f}, {n}; {by_seed(ratio)})"
        if ratio["left_out"]:
            seen += f", {plural(ratio['left_out'], 'inconclusive attack')} left out,"
        if ratio["low"] <= 1 <= ratio["high"]:
            out.append(f"{name}: no difference shown; it takes {seen} that its gradient-trained twin takes.")
        elif len({r > 1 for r in ratio["seeds"] if r is not None}) > 1:
            out.append(
                f"{name}: no difference that all seeds show; it takes {seen} that its gradient-trained twin takes."
            )
        else:
            more = "more" if ratio["value"] > 1 else "less"
            out.append(f"{name}: {more} robust; it takes {seen} that its gradient-trained twin takes.")
    return out


def by_seed(ratio: dict[str, Any]) -> str:
    """The ratio of each seed."""
    return "by seed " + ", ".join("–" if r is None else f"{r:.2f}" for r in ratio["seeds"])


def medians(results: dict[str, Any], question: str, metric: str = "balanced_accuracy") -> dict[str, float]:
    return {r["method"]: r["value"] for r in results["rows"] if r["question"] == question and r["metric"] == metric}


def p_value(p: float) -> str:
    return "<" + NBSP + "0.001" if p < 0.001 else f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def _searches(n: int) -> str:
    return plural(n, "nature-inspired search", "nature-inspired searches")


def _title(results: dict[str, Any], question: str, name: str) -> str:
    """As it stands inside a sentence: "grey wolf", but "Adam" and "CMA-ES"."""
    title = str(results["questions"][question]["methods"][name]["title"])
    proper = title.startswith(("Adam", "Harmony", "TPE")) or title[1:2].isupper() or not title[1:2].isalpha()
    return title if proper else title[:1].lower() + title[1:]
