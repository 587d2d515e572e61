"""Is the gradient that attacks follow that of the network? The comparison, tested on copies that hide theirs."""

from __future__ import annotations

import math
from dataclasses import asdict

from medrobust.attacks.choose_substitute import Trial, choose
from medrobust.attacks.derivative import Derivative, Ends, derivative, hidden
from medrobust.attacks.drawn import followed
from medrobust.attacks.masking import causes, sentence
from medrobust.attacks.substitute import Substitute
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import checks
from medrobust.images import Images
from medrobust.results import Check
from medrobust.store import Cell, Result

MOST, FEWEST = 24, 6
"""Images that are compared: fewer where they are large."""
PIXELS = 24 * 128**2
"""Pixels that are compared, of all images together."""
TESTED = 6
"""Images on which a copy that hides its gradient must be noticed."""


def compared(part: Dataset) -> int:
    """How many images of that size are compared at most."""
    return max(FEWEST, min(MOST, PIXELS // (part.shape[1] * part.shape[2])))


def derived(classifier: Classifier, sample: Dataset, seed: int, *, seek: bool = False) -> Result:
    """The comparison on the network and on copies that hide their gradient; null where nothing could be compared.

    seek: also look for a stand-in for a gradient that does not hold. Then the comparison is that of the stand-in, and
    that of the network's own gradient stands beside it.
    Of a random network that is ``averaged`` the gradient is that of the mean which attacks follow.
    Rounding to grey levels in preprocessing is left out: attacks go through it by the straight-through estimator, and
    what they reach is judged with it.
    """
    images, labels = sample.tensors()
    classifier = followed(classifier).without_rounding()
    ends = Ends(classifier, images, seed, list(sample.ids))
    own = result = derivative(classifier, images, seed=seed, ids=sample.ids, ends=ends)
    hidden_by = sentence(causes(classifier, images[_by_decision(classifier, images)])) if own.holds is False else ""
    noticed: dict[str, bool] = {}
    trials: list[Trial] = []
    repeatable = classifier.draws is not None or classifier.inspection is None or classifier.inspection.repeatable
    if result.holds is False and seek and repeatable:
        trials = choose(classifier, images, labels, seed=seed, ids=sample.ids, ends=ends)
        best = trials[-1]
        if best.substitute is not None and best.derivative is not None and not best.substitute.frequencies:
            result = best.derivative  # of differences it would say nothing: see ``choose``
    if result.holds:
        for name, other in hidden(classifier).items():
            there = derivative(other, images[:TESTED], seed=seed, ids=sample.ids[:TESTED], ends=ends)
            noticed[name] = there.holds is False
    return {
        "derivative": _plain(result),
        "own": _plain(own),
        "noticed": noticed,
        "hidden_by": hidden_by,
        "trials": [
            {
                "substitute": None if t.substitute is None else asdict(t.substitute),
                "cosine": None if t.derivative is None else _plain(t.derivative)["cosine"],
                "fooled": t.fooled if math.isfinite(t.fooled) else None,
                "failed": t.failed,
            }
            for t in trials
        ],
    }, {}


def _by_decision(classifier: Classifier, images: Images) -> list[int]:
    """Positions of the images, one of each decision first."""
    decisions = [tuple(d.flatten().tolist()) for d in classifier.predict(images)]
    first = [i for i, d in enumerate(decisions) if d not in decisions[:i]]
    return [*first, *(i for i in range(len(images)) if i not in first)]


def _plain(derivative: Derivative) -> dict[str, float | None]:
    return {k: v if math.isfinite(v) else None for k, v in derivative._asdict().items()}


def _read(numbers: dict[str, float | None]) -> Derivative:
    cosine, needed = (math.nan if (v := numbers[k]) is None else float(v) for k in ("cosine", "range_needed"))
    return Derivative(
        cosine,
        needed,
        int(numbers["compared"] or 0),
        int(numbers["examined"] or 0),
        bool(numbers["flat"]),
        math.nan if numbers.get("turned") is None else float(numbers["turned"] or 0),
    )


def substitute(cell: Cell) -> Substitute | None:
    """The stand-in for the network's own gradient; None where attacks follow that."""
    trials = cell.fact("trials", list)
    chosen = trials[-1]["substitute"] if trials else None
    return None if chosen is None else Substitute(**chosen)


def gradient_check(cell: Cell) -> Check:
    """What ``derived`` found, as a check."""
    chosen = substitute(cell)
    return checks.gradient_holds(
        _read(cell.fact("derivative", dict)),
        cell.fact("noticed", dict),
        _read(cell.fact("own", dict)),
        "" if chosen is None else chosen.text,
        cell.fact("hidden_by", str),
    )


def examined(classifier: Classifier, part: Dataset, seed: int, *, seek: bool = False) -> Cell:
    """``derived`` in one go, on some images of ``part``."""
    facts, arrays = derived(classifier, part.sample(compared(part), seed), seed, seek=seek)
    return Cell(facts, arrays, 0.0)


def checked(classifier: Classifier, part: Dataset, seed: int) -> Check:
    """The check in one go, of the network's own gradient."""
    return gradient_check(examined(classifier, part, seed))


def attacked(classifier: Classifier, cell: Cell) -> Classifier:
    """The classifier as attacks see it: where its gradient is masked, with the stand-in of ``derived`` for that; of a
    random network the mean that they follow."""
    chosen, classifier = substitute(cell), followed(classifier)
    return classifier if chosen is None else classifier.changed(substitute=chosen)
