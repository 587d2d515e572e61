"""What is said of the reasons inside a network: each sentence a function of its numbers, each beside its control."""

from __future__ import annotations

import math
from dataclasses import dataclass

from medrobust.report.comparison import Relation, Share, numbers, relation
from medrobust.report.words import NBSP, bounds, count, ends, number, percent

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
HALF_EXPLAINED = math.sqrt(0.5)
"""Rank correlation from which more than half of the differences between images are explained."""


def signed(value: float) -> str:
    """Three significant digits, very small ones as a power of ten."""
    if value < 0:
        return "−" + signed(-value)
    if 0 < value < 0.001:
        power = math.floor(math.log10(value))
        return f"{value / 10**power:.1f}·10{str(power).translate(RAISED)}"
    return number(value)


def ranged(share: Share) -> str:
    """ "0.41 (0.32–0.5)"; without an interval the number alone."""
    if share.low is None or share.high is None:
        return signed(share.value)
    return f"{signed(share.value)} ({ends(signed(share.low), signed(share.high))})"


def _n(share: Share) -> str:
    return f"n{NBSP}={NBSP}{count(share.n)}"


def steep(along: Share, random: Share) -> str:
    """Rise of the loss one grey level away, along the gradient's sign and along random signs."""
    text = f"One grey level on every pixel, in the worst direction, raises the model's loss by {ranged(along)} nats "
    text += f"(median, {_n(along)}); one grey level at random by {ranged(random)}. "
    if relation(along, random) is Relation.ABOVE and along.surely_above(0):
        return text + "The model is steep in a few directions and flat in nearly all others: noise does not find them."
    return text + "So the worst direction is not clearly steeper than any other at this size."


@dataclass(frozen=True)
class LinearEstimate:
    """Lead of the right answer, what a grey level takes of it, grey levels that are enough by that, and their rank
    correlation with the measured eps*."""

    lead: Share
    slope: Share
    enough: Share
    foretells: Share | None


def enough(estimate: LinearEstimate) -> str:
    text = f"The right answer leads by {ranged(estimate.lead)} logits, and each grey level can take away "
    text += f"{ranged(estimate.slope)} of that: by this estimate {ranged(estimate.enough)} grey levels are enough "
    text += f"({_n(estimate.enough)})."
    held = estimate.foretells
    if held is None:
        return text
    text += " Over single images the estimate and the measured ε* have a rank correlation of "
    text += f"{ranged(held)} ({_n(held)}; 0 is none). "
    if held.surely_above(HALF_EXPLAINED):
        return text + "So most of what decides how easily an image breaks can be read off before any attack."
    if held.surely_above(0):
        return text + "So the estimate tells in part which images break first."
    return text + "So the estimate is not shown to tell which images break first."


def wide(half: Share) -> str:
    text = f"Half of what moves the loss lies on {percent(half.value)} {bounds(half.low, half.high)}".rstrip()
    return text + f" of the pixels (median, {_n(half)}; a flat map has 50{NBSP}%, a few decisive pixels nearly none)."


def moved(shift: Share, noise: Share | None, size: str) -> str:
    """How far the centre of Grad-CAM goes under the attack and under noise of the same size."""
    text = f"Where the attack ({size}) turns the answer, the centre of what speaks for it (Grad-CAM) moves by "
    text += f"{percent(shift.value)} {bounds(shift.low, shift.high)}".rstrip()
    text += f" of the image's diagonal (median, {_n(shift)})"
    if noise is None:
        return text + "; what noise of the same size does was not measured."
    text += f"; noise of the same size moves it by {percent(noise.value)} {bounds(noise.low, noise.high)}".rstrip()
    return (
        text
        + {
            Relation.ABOVE: ".",
            Relation.BELOW: ", which is further.",
            Relation.APART_UNKNOWN: ": not shown to be less.",
            Relation.NO_CONTROL: ".",
        }[relation(shift, noise)]
    )


@dataclass(frozen=True)
class Lesion:
    """Share of images whose brightest point of Grad-CAM lies in the lesion, before and after the attack; area: what
    the lesion takes of the image, which is what chance would give; pixels: AUROC of the gradient against it."""

    before: Share
    area: Share
    after: Share | None = None
    pixels: Share | None = None

    @property
    def looks(self) -> bool:
        """On most images, and more often than by chance."""
        return self.before.surely_above(0.5) and self.before.surely_above(self.area.value)


def lesion(shares: Lesion) -> str:
    text = "These images were drawn with a known lesion. The brightest point of Grad-CAM lies in it on "
    text += f"{shares.before.hits} of {shares.before.n} images ({numbers(shares.before)}; by chance "
    text += f"{percent(shares.area.value)})"
    text += (
        f", after the attack on {shares.after.hits} of {shares.after.n} ({numbers(shares.after)}). "
        if shares.after
        else ". "
    )
    if shares.looks:
        text += "So it looks at the lesion on most images."
    elif shares.before.surely_above(shares.area.value):
        text += "That is more often than by chance, but not shown to be most of the images."
    else:
        text += "That is not clearly more than chance."
    if shares.pixels is not None:
        text += f" The gradient tells its pixels from others with an AUROC of {ranged(shares.pixels)} (0.5 is chance)."
    return text
