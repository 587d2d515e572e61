"""Which of the defences that were tried to take, and why: clean against robust accuracy, and what each costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from medrobust.report import input_defence_words as words
from medrobust.report.comparison import Relation, Share, relation
from medrobust.report.input_defence_words import AWARE, HELPFUL, NONE, Defended, Worth, share, worth
from medrobust.report.run import Run
from medrobust.report.words import NBSP, bounds, listing, number, plural
from medrobust.results import Kind


class Costs(NamedTuple):
    """Before and with a defence, where nobody attacks; None where it was not measured.

    change: of accuracy. sensitivity: at the classifier's own specificity. times: as long for an image. referred: to a
    person.
    """

    change: Share | None = None
    sensitivity: tuple[Share, Share] | None = None
    ece: tuple[float, float] | None = None
    times: float | None = None
    referred: Share | None = None


class Candidate(NamedTuple):
    """A defence, or none. clean: accuracy on untouched images. robust: share that withstands who knows all.

    judged: None of the classifier alone.
    """

    name: str
    title: str
    clean: Share
    robust: Share
    judged: Defended | None = None
    costs: Costs = Costs()


class Recommendation(NamedTuple):
    """take: name of the defence to take, None where none holds. tone: of a first page."""

    take: str | None
    title: str
    text: str
    tone: str


def front(every: Sequence[Candidate]) -> list[str]:
    """Names of those that no other beats on clean and robust accuracy both (Pareto), by their values."""

    def beaten(one: Candidate) -> bool:
        mine = one.clean.value, one.robust.value
        points = [(o.clean.value, o.robust.value) for o in every]
        return any(c >= mine[0] and r >= mine[1] and (c, r) != mine for c, r in points)

    return [one.name for one in every if one.robust.ok and not beaten(one)]


def chosen(every: Sequence[Candidate]) -> Candidate | None:
    """Of those that hold, or else help, and are not told apart from the most robust, the most accurate untouched."""
    for group in ((Worth.HOLDS,), HELPFUL):
        able = [one for one in every if one.judged is not None and worth(one.judged) in group]
        if able:
            best = max(able, key=lambda one: one.robust.value)
            alike = [one for one in able if relation(best.robust, one.robust) is not Relation.ABOVE]
            return max(alike, key=lambda one: (one.clean.value, one.robust.value))
    return None


def recommended(every: Sequence[Candidate]) -> Recommendation:
    """Of candidates at one size, the classifier alone among them."""
    alone = next(one for one in every if one.judged is None)
    by: dict[Worth, list[Candidate]] = {w: [] for w in Worth}
    size = ""
    for one in every:
        if one.judged is not None:
            by[worth(one.judged)].append(one)
            size = one.judged.size
    tried = sum(map(len, by.values()))
    count = f"Of {tried} that were tried at {size}" if tried > 1 else f"At {size}"
    take, safe, holding = chosen(every), _looks_safe(by[Worth.SEEMS]), by[Worth.HOLDS]
    if take is None:
        text = f"{count}, none holds: alone, {share(alone.robust)} of {plural(alone.robust.n, 'image')} withstand an "
        text += "attacker who knows everything, and no defence is shown to keep half of them. None is recommended as a "
        text += "protection; medrobust harden trains the classifier against attacks, and --hardened judges the result "
        text += "beside these."
        title = "Looks safe, is not." if by[Worth.SEEMS] else "Nothing that was tried holds."
        return Recommendation(None, title, " ".join(filter(None, [text, safe])), "bad" if by[Worth.SEEMS] else "warn")
    others = [one.title for w in HELPFUL for one in by[w] if one is not take]
    if not holding:
        what = f"none is shown to hold, and {take.title} is recommended as the best that helps"
    elif len(holding) == 1:
        what = f"only {take.title} holds"
    else:
        what = f"{len(holding)} hold, and {take.title} is recommended"
    text = f"{count}, {what}: {share(take.robust)} of {plural(take.robust.n, 'image')} withstand an attacker who "
    text += f"knows it, {share(alone.robust)} without. {_costs(take.costs)}"
    if others:
        verb = "helps" if len(others) == 1 else "help"
        text += f" {listing(others)} {verb} too, but less, or at a higher cost in clean accuracy."
    title = f"{take.title} holds." if holding else f"{take.title} helps, and is not shown to hold."
    tone = "calm" if holding else "warn"
    return Recommendation(take.name, title, " ".join(filter(None, [text, safe])), tone)


def _looks_safe(seeming: Sequence[Candidate]) -> str:
    """ "Looks safe, is not: JPEG (61 % against who does not know it, 4 % against who does)."."""
    told = []
    for one in seeming:
        assert one.judged is not None
        unknown, who = one.judged.unaware, "who does not know it"
        if relation(unknown, one.judged.alone) is not Relation.ABOVE and one.judged.transferred is not None:
            unknown, who = one.judged.transferred, "who has another classifier"
        told.append(f"{one.title} ({share(unknown)} against {who}, {share(one.judged.aware)} against who knows it)")
    if not told:
        return ""
    verb = "Looks safe, is not" if len(told) == 1 else "Look safe, are not"
    return f"{verb}: {'; '.join(told)}."


def _costs(costs: Costs) -> str:
    parts = []
    if costs.change is not None:
        low, high = ("?" if e is None else f"{100 * e:+.1f}" for e in (costs.change.low, costs.change.high))
        points = f"{100 * costs.change.value:+.1f}{NBSP}points ({low} to {high})"
        parts.append(f"accuracy changes by {points} on {plural(costs.change.n, 'untouched image')}")
    if costs.sensitivity is not None:
        before, after = costs.sensitivity
        parts.append(f"sensitivity at the same specificity goes from {share(before)} to {share(after)}")
    if costs.ece is not None:
        parts.append(f"the calibration error from {costs.ece[0]:.3f} to {costs.ece[1]:.3f}")
    if costs.times is not None:
        parts.append(f"an image takes {number(costs.times)} times as long")
    parts.append("no image is referred" if costs.referred is None else f"{per_thousand(costs.referred)} are referred")
    return f"What it costs: {'; '.join(parts)}."


def per_thousand(one: Share) -> str:
    """ "52 (36–74) of 1,000 studies"."""
    low_high = bounds(one.low, one.high, 0, 1000)
    return f"{1000 * one.value:.0f} {low_high}".strip() + f" of 1,000{NBSP}studies"


def of_run(run: Run, eps: float) -> list[Candidate]:
    """Everything that was tried, the classifier alone first."""
    every = []
    for name, judged in {NONE: None, **words.of_run(run, eps)}.items():
        clean = Share.of(run.find(Kind.DEFENCE, "accuracy", defence=name))
        robust = words.withstood(run, name, AWARE, eps)
        title = "No defence" if judged is None else judged.title
        if clean is not None and robust is not None:
            every.append(Candidate(name, title, clean, robust, judged, _costs_of(run, name)))
    return every


def _costs_of(run: Run, name: str) -> Costs:
    def both(metric: str) -> tuple[Share, Share] | None:
        before, after = (Share.of(run.find(Kind.DEFENCE, metric, defence=n)) for n in (NONE, name))
        return None if before is None or after is None else (before, after)

    ece, times = both("ece"), run.find(Kind.DEFENCE, "times_as_long", defence=name)
    return Costs(
        Share.of(run.find(Kind.DEFENCE, "accuracy_change", defence=name)),
        both("sensitivity"),
        None if ece is None else (ece[0].value, ece[1].value),
        None if times is None else times.value,
        Share.of(run.find(Kind.DEFENCE, "referred", defence=name)),
    )


def recommendation(run: Run) -> Recommendation | None:
    """At the size at which most is told apart; None where nothing was measured."""
    eps = words.telling(run)
    every = [] if eps is None else of_run(run, eps)
    return recommended(every) if len(every) > 1 else None
