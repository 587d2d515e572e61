"""What a page advises: each a function of the numbers that call for it, and None where they do not."""

from __future__ import annotations

from dataclasses import dataclass

from medrobust.report.comparison import Relation, Share, in_words, numbers, relation
from medrobust.report.detection_words import DetectionRate, EvasionRates

WIDE = 0.15
"""Width of a 95 % interval from which more images are called for."""
SEPARATES = 0.6
"""AUROC from which a classifier that guesses may only have a wrong threshold."""


@dataclass(frozen=True)
class Advice:
    """title: what to do; text: which numbers call for it; command: does it."""

    title: str
    text: str
    command: str = ""


def harden(at: Share, size: str) -> Advice | None:
    """Where attacks leave fewer than half of the images. at: accuracy under attack at ``size``."""
    if not at.ok or not at.surely_below(0.5):
        return None
    text = f"At {size}, attacks leave {numbers(at)} of the images. medrobust harden trains on images as attacks change "
    text += "them, and measures what that costs without an attack; with PGD an epoch has eight passes instead of one."
    return Advice("Train it to withstand such changes", text)


def train_against_one_change(rate: Share, control: Share | None, goal: str = "") -> Advice | None:
    """Where one change for all images does more than random changes. goal: the class it was made towards."""
    if not rate.ok or relation(rate, control) is not Relation.ABOVE or control is None:
        return None
    what = f"turns {in_words(rate)} into {goal}" if goal else f"gives {in_words(rate)} another answer"
    text = f"One change for all images {what}, random changes of its size {numbers(control)}. medrobust defend trains "
    text += "against such changes and tries fresh ones after every round; it is not made for attacks on single images."
    return Advice("Train it against one change for all images", text)


def guard(rates: DetectionRate, evasion: EvasionRates | None, title: str) -> Advice | None:
    """Where a detector sees plain attacks, and those who know it do not get past it on most images."""
    if not rates.sees or rates.alarms is None:
        return None
    if evasion is not None and (not evasion.knowing.ok or not evasion.knowing.surely_below(0.5)):
        return None
    text = f"The {title} detector raises an alarm on {numbers(rates.rate)} of the attacked images and on "
    text += f"{numbers(rates.alarms)} of the clean ones. "
    if evasion is None:
        text += "Whether an attacker who knows it gets past was not tried: try that before relying on it."
        return Advice("Attack past the detector", text)
    text += f"An attacker who knows it gets past on {numbers(evasion.knowing)}. medrobust detect writes a guard to use."
    return Advice("Guard against attacked images with a detector", text)


@dataclass(frozen=True)
class Rounding:
    """Accuracy on the same images at one size: as computed, and after saving at 8 bits.

    below_half: the changes are smaller than half a grey level of an 8-bit image, so that saving undoes them.
    """

    computed: Share
    saved: Share | None
    size: str
    below_half: bool = False


def round_first(r: Rounding) -> Advice | None:
    """Where rounding to whole grey levels takes the attack away."""
    title = "Accept only images of whole grey levels"
    if r.below_half:
        text = f"The changes of {r.size} that fool it are smaller than half a grey level: they vanish exactly where an "
        text += "8-bit image is stored. Refuse pixels between two grey levels, or round them. Then attack stored files:"
        return Advice(title, text)
    if r.saved is None or not (r.computed.ok and r.saved.ok) or relation(r.saved, r.computed) is not Relation.ABOVE:
        return None
    text = f"At {r.size} the attack leaves {numbers(r.computed)} correct as computed, {numbers(r.saved)} after saving "
    text += "at 8 bits. Refuse pixels between two grey levels, or round them. Then attack stored files:"
    return Advice(title, text)


def more_images(at: Share, noise: Share | None, unused: int, size: str) -> Advice | None:
    """Where the number of the page is uncertain and test images are left. unused: those that were not attacked."""
    wide = at.low is None or at.high is None or at.high - at.low > WIDE
    open_ = noise is not None and relation(noise, at) is Relation.APART_UNKNOWN
    if unused <= 0 or not (wide or open_):
        return None
    why = "Its interval is wide" if wide else "Attack and noise are not told apart"
    text = f"{why}: at {size} the accuracy is {numbers(at)}. {unused:,} further test images were not attacked."
    return Advice("Attack more images", text)


def larger(lowest: Share, before: float, size: str) -> Advice | None:
    """Where the largest size tested leaves more than half of the accuracy before."""
    if lowest.value <= before / 2:
        return None
    text = f"At {size}, the largest change that was tried, the accuracy is {numbers(lowest)}: where it halves is not "
    return Advice("Attack with larger changes", text + "known.")


def smaller(first: Share, before: float, size: str) -> Advice | None:
    """Where the smallest size tested leaves no more than half of the accuracy before."""
    if first.value > before / 2:
        return None
    text = f"At {size}, the smallest change that was tried, the accuracy is {numbers(first)} already: how small a "
    return Advice("Attack with smaller changes", text + "change is enough is not known.")


def without_gradients(reasons: str) -> Advice:
    """Where attacks that follow gradients are not believed. reasons: why; empty where the page has said so."""
    why = f": {reasons}" if reasons else ""
    text = f"Attacks that follow the gradient cannot be believed here{why}. Attacks that see only the answers do "
    return Advice("Attack without gradients", text + "not depend on it.")


def full_ensemble(at: Share, size: str) -> Advice:
    """Where a short ensemble left the number of the page, and nothing halved it."""
    text = f"{numbers(at)} at {size} comes from a short ensemble and is an upper bound. Its full length takes longer "
    return Advice("Attack with the full ensemble", text + "and can only lower it.")


def threshold(area: Share) -> Advice | None:
    """Where a classifier guesses, but its scores separate the classes."""
    if not area.surely_above(SEPARATES):
        return None
    assert area.low is not None
    assert area.high is not None
    text = f"It guesses at its threshold, but its scores separate the classes (AUROC {area.value:.3f}, 95 % interval "
    text += f"{area.low:.3f}–{area.high:.3f}, n = {area.n:,}). Choose the threshold on validation images."
    return Advice("Set its threshold", text)
