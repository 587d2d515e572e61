"""What a comparison of searches says, in plain words."""

from __future__ import annotations

from typing import Any

from medrobust.report.words import NBSP, listing, percent, plural

TITLES = {
    "weights": "Weights of the network", "masks": "Which features to keep",
    "hyper": "Hyper-parameters and hidden size", "threshold": "Decision threshold",
}  # fmt: skip
FREE = {
    "weights": "all weights of a network with one hidden layer of 8 tanh units",
    "masks": "a yes or no for each feature; what is kept goes into a logistic regression",
    "hyper": "weight decay, learning rate, hidden units and principal components of a network trained by Adam",
    "threshold": "how far each class's logit is moved before the largest decides",
}
OBJECTS = {
    "weights": "such networks", "masks": "the choice of features", "hyper": "hyper-parameters",
    "threshold": "the threshold",
}  # fmt: skip
ALPHA = 0.05


def sides(results: dict[str, Any], question: str, p: str = "p") -> tuple[list[str], list[str], list[str]]:
    """Nature-inspired searches that are (better, worse, not told apart) from the reference, p < ALPHA.

    p: "p" for the corrected test, "p_wilcoxon" for signed ranks over seeds.
    """
    told = results["questions"][question]
    names = [n for n, m in told["methods"].items() if m["kind"] == "search" and n in told["against"]]
    apart = [n for n in names if told["against"][n][p] < ALPHA]
    better = [n for n in apart if told["against"][n]["difference"] > 0]
    worse = [n for n in apart if n not in better]
    return better, worse, [n for n in names if n not in apart]


def short(results: dict[str, Any], question: str) -> tuple[str, str]:
    """(tone, headline)."""
    better, worse, same = sides(results, question)
    total = len(better) + len(worse) + len(same)
    reference = _title(results, question, results["questions"][question]["reference"])
    if not total:
        return "warn", "No nature-inspired search was compared"
    if better:
        return "calm", f"{len(better)} of {_searches(total)} beat {reference}"
    if worse:
        return "warn", f"No nature-inspired search beats {reference}, {len(worse)} of {total} do worse"
    return "warn", f"No nature-inspired search can be told apart from {reference}"


def verdict(results: dict[str, Any], question: str) -> str:
    """Does the review's claim hold on these images? A paragraph."""
    told, values = results["questions"][question], medians(results, question)
    better, worse, same = sides(results, question)
    total = len(better) + len(worse) + len(same)
    reference = _title(results, question, told["reference"])
    out = []
    if total:
        claim = f"That nature-inspired search significantly optimises {OBJECTS[question]}"
        if better:
            who = listing([_title(results, question, n) for n in better])
            out.append(f"{claim} holds here for {len(better)} of {_searches(total)}, measured against {reference} on "
                       f"the same budget: {who}.")  # fmt: skip
        else:
            out.append(f"{claim} does not hold here: on the same budget none of {_searches(total)} beats {reference}.")
        if worse:
            out.append(f"{len(worse)} of {total} do worse.")
        if same:
            out.append(f"{len(same)} of {total} can not be told apart from it.")
        easy_better, easy_worse, _ = sides(results, question, "p_wilcoxon")
        found = f"{len(easy_better) or 'none'} better and {len(easy_worse) or 'none'} worse"
        out.append(
            f"(A test that takes seeds for independent, which draws of the same patients are not, calls {found}.)"
        )
        best = max((n for n in values if told["methods"][n]["kind"] == "search"), key=lambda n: values[n])
        found = f"{_title(results, question, best)}, reaches a balanced accuracy of {percent(values[best])}"
        out.append(f"The best of them, {found}, {reference} {percent(values[told['reference']])}.")
    for name, row in told["methods"].items():
        if row["kind"] in ("baseline", "random") and name != told["reference"]:
            title = _title(results, question, name)
            out.append(f"{title[:1].upper()}{title[1:]}: {percent(values[name])}.")
    both = [n for n in values if told["methods"][n]["kind"] == "both"]
    if both:
        best = max(both, key=lambda n: values[n])
        found = f"{_title(results, question, best)} reaches {percent(values[best])}"
        out.append(f"Of the searches that gradient descent follows, {found}.")
    return " ".join(out)


def robustness(told: dict[str, Any]) -> list[str]:
    """Are evolved networks more or less robust than gradient-trained ones of the same accuracy? Sentences."""
    out = []
    for row in told["rows"]:
        ratio = row.get("ratio")
        if not ratio:
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
