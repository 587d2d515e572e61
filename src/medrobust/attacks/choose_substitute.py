"""Which stand-in for a masked gradient is followed: the first that agrees with finite differences, or the strongest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from medrobust.attacks.apgd import APGD
from medrobust.attacks.derivative import Derivative, Ends, derivative
from medrobust.attacks.engine import run
from medrobust.attacks.substitute import Substitute
from medrobust.classifier import Classifier
from medrobust.images import Images, Labels
from medrobust.seeds import Id
from medrobust.threat import Linf, Untargeted, margin

WITHOUT_HOOKS = Substitute(hooks=True)
THROUGH = replace(WITHOUT_HOOKS, functions=True)
CUSTOM = replace(THROUGH, custom=True)
CANDIDATES = (
    *(WITHOUT_HOOKS, THROUGH, CUSTOM, replace(CUSTOM, secants=True)),
    *(replace(CUSTOM, entry=True), replace(CUSTOM, exit=True), replace(CUSTOM, entry=True, exit=True)),
)
"""From what changes least to what changes most."""
NOISE = 8 / 255
FREQUENCIES = 8
STEPS, SIZES = 10, (1 / 255, 4 / 255, 16 / 255)
"""Of the short attack, in Linf."""


class Trial(NamedTuple):
    """How a stand-in did; substitute None: the network's own gradient.

    derivative: its comparison with finite differences. fooled: share of the images and sizes at which a short attack
    fooled the network; NaN where none was made. failed: the error with which the network ended.
    """

    substitute: Substitute | None
    derivative: Derivative | None = None
    fooled: float = math.nan
    failed: str = ""


def choose(
    classifier: Classifier,
    images: Images,
    labels: Labels,
    *,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
    ends: Ends | None = None,
) -> list[Trial]:
    """Stand-ins for the gradient of ``classifier``, tried on images (n, c, h, w); the one to take comes last.

    The first whose derivative agrees with finite differences is taken; where that passes by what is done to the images
    before the first layer, it or its blurred gradient, through whichever a short attack fools more. Where none agrees,
    that through which a short attack at ``SIZES`` fools most; then also noise and a blur are tried on it, and
    differences, and the network's own gradient stays where none does better. ends: see ``derivative``.
    """
    ends = ends or Ends(classifier, images, seed, list(range(len(images)) if ids is None else ids))

    def compared(candidate: Substitute) -> Trial:
        try:
            found = derivative(classifier.changed(substitute=candidate), images, seed=seed, ids=ids, ends=ends)
        except Exception as error:  # the network's own code may fail where what it calls is changed
            return Trial(candidate, failed=type(error).__name__)  # its text may quote a path
        # differences agree with the differences that they are compared with, whatever lies between them
        agrees = bool(found.holds) and not candidate.frequencies
        return Trial(replace(candidate, agrees=agrees), found)

    def attacked(trial: Trial) -> Trial:
        through, fooled = classifier.changed(substitute=trial.substitute), 0.0
        for size in SIZES:
            done = run(APGD(STEPS, loss=margin), through, images, Untargeted(labels), Linf(size), seed=seed, ids=ids)
            fooled += float(done.reached.float().mean()) / len(SIZES)
        return trial._replace(fooled=fooled)

    trials: list[Trial] = []
    for candidate in CANDIDATES:
        trials.append(compared(candidate))
        if (found := trials[-1].substitute) is not None and found.agrees:
            if not found.entry:
                return trials
            both = [trials[-1], trials[-1]._replace(substitute=replace(found, smooth=True))]
            return [*trials[:-1], *sorted(map(attacked, reversed(both)), key=_fooled)]
    failed = [t for t in trials if t.failed]
    tried = [attacked(t) for t in (Trial(None), *_different(trials))]
    best = max(tried, key=_fooled)  # of several the first, which changes least
    start = best.substitute or Substitute()
    further = [replace(start, noise=NOISE), replace(start, smooth=True), Substitute(frequencies=FREQUENCIES)]
    for candidate in further if classifier.draws is None else ():  # of every draw they would take too long
        trial = compared(candidate)
        (failed if trial.failed else tried).append(trial if trial.failed else attacked(trial))
    best = max(tried, key=_fooled)
    return [*failed, *(t for t in tried if t is not best), best]


def _fooled(trial: Trial) -> float:
    return trial.fooled


def _different(trials: list[Trial]) -> list[Trial]:
    """Those that ran, without any whose gradient is that of one before: it predicts the same changes."""
    cosines = [None if t.derivative is None else t.derivative.cosine for t in trials]
    return [t for i, t in enumerate(trials) if cosines[i] is not None and cosines[i] not in cosines[:i]]
