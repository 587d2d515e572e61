"""What is said of an explained classifier, and of others beside it: each sentence a function of its numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from medrobust.report import explanation_tables as tables
from medrobust.report.comparison import Share
from medrobust.report.words import NBSP, count, plural

LEAST = 6
"""Images below which a median has no 95 % interval."""


def ranged(share: Share, *, percent: bool = False) -> str:
    """ "0.17 (0.15–0.19)"; percent: "17 % (15–19)"."""
    return tables.estimate_text(share, percent=percent)


def _n(share: Share) -> str:
    return f"n{NBSP}={NBSP}{count(share.n)}"


@dataclass(frozen=True)
class Walk:
    """Median loss at the images, one grey level along the gradient's sign, and one grey level along random signs."""

    clean: Share
    rise: Share
    random: Share


def steep(slope: Share, walk: Walk | None) -> str:
    text = f"Moving every pixel of an image by one grey level the worst way raises the loss by {ranged(slope)} nats "
    text += f"to first order (median of {plural(slope.n, 'image')})."
    if walk is not None:
        text += f" At one grey level along that direction the loss has gone from {ranged(walk.clean)} to "
        text += f"{ranged(walk.rise)} nats, along a random direction to {ranged(walk.random)} ({_n(walk.rise)})."
    return text


def wide(half: Share) -> str:
    text = f"Half of the input gradient lies on {ranged(half, percent=True)} of the pixels (median of "
    return text + f"{plural(half.n, 'image')}; 50{NBSP}% would be a flat map)."


def simple(layer: str, rank: Share, of_largest: Share) -> str:
    text = f"Halfway ({layer}) an image has an effective rank of {ranged(rank)}, "
    return text + f"{ranged(of_largest, percent=True)} of the largest possible ({_n(rank)})."


@dataclass(frozen=True)
class Moved:
    """attack: what it was, with its size. shift: how far the centre of Grad-CAM moves; the controls: asked, where only
    the question changes, and noise of the same size."""

    attack: str
    reached: int
    n: int
    shift: Share | None = None
    asked: Share | None = None
    noise: Share | None = None


def moved(shares: Moved) -> str:
    turned = f"{shares.attack} turned {count(shares.reached)} of {plural(shares.n, 'image')}."
    if shares.shift is None:
        return turned + (" No change of Grad-CAM could be measured." if shares.reached else "")
    text = f" The centre of Grad-CAM, asked about the decision, moves by {ranged(shares.shift, percent=True)} of the "
    text += f"diagonal ({_n(shares.shift)})"
    if shares.asked is None:
        text += "; what asking about the new class alone does was not measured."
    else:
        text += f"; asking the untouched image about the new class moves it by {_whole(shares.asked)}."
    if shares.noise is not None:
        text += f" Noise of the same size moves it by {_whole(shares.noise)}."
    return turned + text


def _whole(share: Share) -> str:
    return f"{ranged(share, percent=True)} ({_n(share)})"


@dataclass(frozen=True)
class InLesion:
    """Share of Grad-CAM's mass in the lesion before the attack, its change, and what the lesion takes of the image."""

    before: Share
    area: Share
    change: Share | None


def in_lesion(shares: InLesion) -> str:
    text = f"Of its mass {ranged(shares.before, percent=True)} lay in the lesion ({_n(shares.before)}), "
    text += f"which takes {ranged(shares.area, percent=True)} of the image"
    if shares.change is None:
        return text + "."
    return text + f"; under the attack that changed by {_whole(shares.change)}."


@dataclass(frozen=True)
class Beside:
    """larger: of pairs of an image of the first classifier and one of ``name``, those in which the first has more.
    n_other: images of the other one."""

    name: str
    larger: Share
    n_other: int


def beside(shares: Sequence[Beside], word: str) -> str:
    """word: what the first classifier is where its number is larger: "steeper"."""
    parts = []
    for other in shares:
        verdict = "no clear difference"
        if other.larger.surely_above(0.5):
            verdict = word
        elif other.larger.surely_below(0.5):
            verdict = f"not {word}, on the contrary"
        share = (
            f"larger in {ranged(other.larger, percent=True)} of pairs, {_n(other.larger)} and {count(other.n_other)}"
        )
        parts.append(f"eside {other.name}: {verdict} ({share})")
    return f"B{'; b'.join(parts)}." if parts else ""


# -- below figures -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Gallery:
    """shown of n images, of so many classes. size: of the attack. lesion: whether its outline is drawn."""

    name: str
    size: str
    shown: int
    n: int
    classes: int
    lesion: bool


def gallery(counts: Gallery) -> str:
    which = "of every class in turn" if counts.classes > 1 else "all of one class"
    text = f"{counts.name}: true class, and → what the attack ({counts.size}) turns it into; {count(counts.shown)} of "
    text += f"n{NBSP}={NBSP}{count(counts.n)} images, {which}. Colour scales of the gradients are the same for every "
    text += "classifier on this page and end at the 99.5th (99th) percentile; Grad-CAM is over its own largest value, "
    text += "its centre marked (no mark: nothing in that layer speaks for the decision); a layer's activations have no "
    text += "unit and are comparable within a row only."
    return text + (" The line in the image is the lesion." if counts.lesion else "")


def embedded(name: str, n: int, reached: int, size: str) -> str:
    text = f"{name}: clean images (n{NBSP}={NBSP}{count(n)}) and those that the attack turned "
    return text + f"(n{NBSP}={NBSP}{count(reached)}), {size}."


def medians(sizes: Sequence[int]) -> str:
    """What is drawn of medians of so many images, a classifier each."""
    if max(sizes) < LEAST:
        return f"median, without an interval: there is none of fewer than {LEAST} images"
    text = "median with its 95 % interval"
    return text + (f"; of fewer than {LEAST} images there is none" if min(sizes) < LEAST else "")
