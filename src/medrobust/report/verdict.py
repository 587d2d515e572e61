"""The verdict: one headline, one sentence with its numbers, and a tone."""

from __future__ import annotations

import math

from medrobust.report import finding_words
from medrobust.report.comparison import Share
from medrobust.report.findings import Findings, Verdict, doubts_together
from medrobust.report.noise_words import beside
from medrobust.report.run import PROBES, WORST, same
from medrobust.report.sizes import change, greys, short_size, size_words, visibility
from medrobust.report.words import NBSP, count, listing, percent, plain, plural, with_interval
from medrobust.results import Kind

LARGE = 0.25
"""Points of accuracy: where the interval reaches further below the clean accuracy than this, nothing is withstood."""


def verdict(f: Findings) -> tuple[str, str, str]:
    """Headline, the sentence under it, and its tone."""
    if (swapped := outputs_swapped(f)) is not None:
        return swapped
    make = {
        Verdict.NOTHING: _nothing,
        Verdict.CHANCE: _chance,
        Verdict.FOOLED: _fooled,
        Verdict.WEAKENED: _held,
        Verdict.WITHSTOOD: _held,
        Verdict.INCONCLUSIVE: _inconclusive,
    }
    return make[f.verdict](f)


IN_ORDER = "outputs are in the order of the classes"
"""The check that finds swapped outputs, by its name in results.json."""


def outputs_swapped(f: Findings) -> tuple[str, str, str] | None:
    """What comes before everything else where another order of the outputs would make the answers right."""
    for check in f.run.checks:
        if check.name == IN_ORDER and check.passed is False:
            text = (
                f"{check.detail[:1].upper()}{check.detail[1:]}. Give the order of the outputs with --classes, or map "
            )
            text += "the names of the data with --map, and audit again: until then no number below means what it says."
            return "Are the outputs of this classifier swapped?", text, "bad"
    return None


def _nothing(_: Findings) -> tuple[str, str, str]:
    return (
        "No attack was measured in this run.",
        "What was recorded is shown below. It says nothing about how easily this classifier is fooled.",
        "warn",
    )


def _chance(f: Findings) -> tuple[str, str, str]:
    row = f.run.find(Kind.CLEAN, "balanced_accuracy")
    guess = percent(f.guess, 0 if f.guess >= 0.01 else 1)
    text = f"Its balanced accuracy is {with_interval(row)}, n{NBSP}={NBSP}{count(row.n if row else None)}; "
    text += f"guessing gives {guess}. "
    text += "A classifier that does not work cannot be said to be fooled: the attack numbers below have little meaning."
    area = f.run.find(Kind.CLEAN, "auroc")
    if area is not None and area.low is not None and area.low >= 0.6:
        text += f" Its scores do separate the classes (AUROC {plain(area)}), so its decision threshold may be off."
    if row is not None and row.high is not None and row.high > (1 + f.guess) / 2:
        return "This classifier is not shown to do better than guessing: there are too few images.", text, "warn"
    return "This classifier does no better than guessing.", text, "warn"


def _fooled(f: Findings) -> tuple[str, str, str]:
    assert f.strongest is not None
    assert f.clean is not None
    half = f.half(f.strongest)
    assert half is not None
    sets = finding_words.any_change(f) if f.several else ""
    grey = greys(f, (finding_words.half(f) if sets else None) or half.eps)
    if math.isnan(grey):
        title = "This classifier can be fooled."
    elif grey <= 1:
        title = "This classifier is easily fooled."
    elif grey <= 4:
        title = "This classifier is fooled by small changes."
    elif grey <= 8:
        title = "This classifier is fooled by moderate changes."
    else:
        title = "This classifier is fooled, but only by large changes."
    at = f.at_reference or half
    shares = f.beside_noise(at)
    text = f"{sets} " if sets else ""
    sized = f"{change(f, at.eps)} – {visibility(f, at.eps)} –"
    text += f"{'It' if sets.startswith(sized) else sized} brings its "
    text += f"{'exact match' if sets else 'accuracy'} from {with_interval(Share.of(f.clean))} "
    text += f"down to {with_interval(at)} ({f.name(f.strongest)}, {plural(at.n or f.attacked or 0, 'image')})"
    text += f"; {beside(shares)}." if shares is not None else "."
    if half.eps > at.eps and not same(half.eps, at.eps):
        text += f" At {short_size(f, half.eps)}, the smallest size tried that halves it, it is {with_interval(half)}."
    elif same(at.eps, f.run.curve(f.strongest)[0].eps):
        text += " No smaller change was tried."
    if f.strongest in PROBES:
        text += (
            " This attack sees no gradients, yet was stronger than those that do: "
            "the gradients are hidden, and the true weakness is probably greater."
        )
    if f.decisive:
        text += (
            f" The gradient cannot be believed ({listing([f'the check “{name}” failed' for name in f.decisive])}), so "
            "attacks that follow it are marked inconclusive: the true weakness is probably greater."
        )
    elif f.doubts or f.shaken:
        text += (
            " Some numbers are marked inconclusive; see “How far to believe this”. Images that were fooled stay fooled."
        )
    return title, text, "bad"


def _held(f: Findings) -> tuple[str, str, str]:
    assert f.clean is not None
    assert f.strongest is not None
    rows = [r for r in f.run.curve(f.strongest) if r.value is not None]
    lowest = min(rows, key=lambda r: r.value or 0.0)
    biggest = rows[-1].eps
    open_ = f.verdict is Verdict.WITHSTOOD and (lowest.low is None or f.clean.value - lowest.low > LARGE)
    if open_:
        title = "Too few images were attacked to say what the attacks do to this classifier."
    elif f.verdict is Verdict.WEAKENED:
        title = "The attacks weaken this classifier, but do not halve its accuracy."
    else:
        title = "No attack tried here had a marked effect on this classifier."
    worst = f.strongest == WORST
    who = f"the {f.name(WORST)}" if worst else f"the strongest of the believable attacks ({f.run.title(f.strongest)})"
    text = (
        f"With changes of up to {size_words(f, biggest)}, {who} leaves "
        f"{with_interval(lowest)} accuracy, n{NBSP}={NBSP}{count(lowest.n)}; "
        f"without attack it is {with_interval(Share.of(f.clean))}"
        f"{f'; {beside(shares)}' if (shares := f.beside_noise(lowest)) is not None else ''}. "
        "This is no proof: another attack, or a larger change, may succeed."
    )
    if greys(f, biggest) < 1:
        text += " Only changes below one grey level were tried."
    if f.doubts:
        names = listing([f.run.title(a) for a in f.doubts])
        text += f" The numbers of {names} are inconclusive"
        text += (
            ": what they fooled counts, what they did not proves nothing."
            if worst
            else " and not part of this statement."
        )
    return title, text, "calm" if f.verdict is Verdict.WITHSTOOD and not open_ else "warn"


def _inconclusive(f: Findings) -> tuple[str, str, str]:
    reasons = doubts_together(f)
    text = "The attacks cannot be believed"
    text += f" ({'; '.join(reasons)}). " if reasons else ": only a single-step attack was run. "
    text += "That they left the accuracy high is no sign of strength: an attack that could not work finds nothing."
    return "Inconclusive: this audit cannot say how easily this classifier is fooled.", text, "warn"


def few_images(f: Findings) -> str:
    text = f"Only {plural(f.attacked or 0, 'image was', 'images were')} attacked, so every number here is rough"
    row = f.at_reference
    if row is not None and row.low is not None and row.high is not None:
        text += f": the accuracy under this attack may lie anywhere between {percent(row.low, 0)} "
        text += f"and {percent(row.high, 0)}"
    return text + "."
