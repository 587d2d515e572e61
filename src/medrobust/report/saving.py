"""After saving the image: what rounding to 8 bits leaves of an attack, for the first page."""

from __future__ import annotations

from itertools import groupby

from medrobust.report.findings import Findings, Verdict
from medrobust.report.paragraph import Paragraph
from medrobust.report.run import same
from medrobust.report.sizes import short_size
from medrobust.report.words import listing, number, plural, with_interval
from medrobust.results import Row

TITLE = "After saving the image"
UNDONE, SURVIVES = 0.2, 0.8
"""Share of the lost accuracy that is still lost after saving: up to the first, and from the second."""

Pair = tuple[Row, Row]
"""Accuracy as computed and after saving at 8 bits, on the same images at the same eps."""


def after_saving(f: Findings, *, first_page: bool = False) -> Paragraph:
    """What was seen at each size that was saved, and what rounding does with certainty.

    first_page: at the reference alone, where it was saved there: the first page speaks of one size.
    """
    attack = f.saved_attack
    pairs = _pairs(f, attack) if attack else []
    if first_page and f.reference is not None:
        pairs = [pair for pair in pairs if same(pair[0].eps, f.reference)] or pairs
    if attack is None or not pairs or f.clean is None:
        text = "Whether the attack survives saving the image was not measured in this run."
        return Paragraph(TITLE, " ".join([text, *_certain(f)]))
    if f.verdict is Verdict.INCONCLUSIVE:
        return Paragraph(TITLE, "Inconclusive: the attacks that would be saved cannot be believed.", True)
    n = max(full.n for full, _ in pairs)
    # what is right after saving was right before the attack: on these few images it may be more than on all
    before = max(f.clean.value, *(saved.value or 0.0 for _, saved in pairs))
    by_outcome = groupby(pairs, key=lambda pair: _outcome(before, *pair))
    sentences = [_sentence(f, outcome, list(part)) for outcome, part in by_outcome]
    intro = f"{f.run.title(attack)} at full strength on {plural(n, 'image')}, "
    intro += "then rounded to 8 bits as in an ordinary PNG file."
    more = [] if first_page else [*_halving(f, attack)]
    return Paragraph(TITLE, " ".join([intro, *sentences, *more, *_certain(f)]))


def _pairs(f: Findings, attack: str) -> list[Pair]:
    full = f.run.curve(attack, "accuracy_full")
    both = [(row, f.run.at(attack, "accuracy_saved", row.eps, bits=8)) for row in full]
    return [(a, b) for a, b in both if b is not None and a.value is not None and b.value is not None]


def _outcome(before: float, full: Row, saved: Row) -> str:
    assert full.value is not None
    assert saved.value is not None
    # few images are saved: harm is what their interval tells apart from the accuracy before
    told_apart = any(r.high is None or r.high < before for r in (full, saved))
    lost = before - full.value
    if not told_apart or before - min(full.value, saved.value) < 0.05:
        return "harmless"
    if lost < 0.05 or saved.value < full.value - 0.1:
        return "grows"
    left = (before - saved.value) / lost
    return "survives" if left >= SURVIVES else "undone" if left <= UNDONE else "part"


_MEANING = {
    "harmless": "the attack did too little harm for the question to arise",
    "survives": "the attack survives saving",
    "part": "part of the attack survives saving",
    "undone": "nothing is left: saving undoes the attack",
    "grows": "saving helps the attack, because rounding to whole levels can enlarge a change",
}


def _sentence(f: Findings, outcome: str, pairs: list[Pair]) -> str:
    if len(pairs) > 3:
        sizes = f"From {short_size(f, pairs[0][0].eps)} to {short_size(f, pairs[-1][0].eps)}"
        pairs = [pairs[0], pairs[-1]]
    else:
        sizes = "At " + _sizes(f, [full.eps for full, _ in pairs])
    changes = [_accuracies(with_interval(full), with_interval(saved)) for full, saved in pairs]
    changes = list(dict.fromkeys(changes)) if len(set(changes)) == 1 else changes
    return f"{sizes} {_MEANING[outcome]} (accuracy {'; '.join(changes)})."


def _accuracies(full: str, saved: str) -> str:
    return f"{full} as computed and saved" if full == saved else f"{full} as computed, {saved} saved"


def _sizes(f: Findings, eps: list[float]) -> str:
    """ "1 and 2 grey levels"."""
    if f.run.conditions.norm != "Linf" or len(eps) == 1:
        return listing([short_size(f, e) for e in eps])
    return f"{listing([number(e * f.run.conditions.grey_scale.unit) for e in eps])}\u00a0grey levels"


def _halving(f: Findings, attack: str) -> list[str]:
    """What the attacker needs for saved images, where the whole grid was saved."""
    if len(f.run.curve(attack, "accuracy_saved", bits=8)) < len(f.run.curve(attack)):
        return []
    half, needed = f.half(attack), f.half(attack, "accuracy_saved", bits=8)
    if half is None:
        return []
    if needed is None:
        return ["No tested size halves the accuracy of saved images."]
    if needed.eps > half.eps:
        text = f"The smallest size tried that halves the accuracy of saved images is {short_size(f, needed.eps)} "
        text += f"({with_interval(needed)}), that of images as computed {short_size(f, half.eps)} "
        return [text + f"({with_interval(half)})."]
    return []


def _certain(f: Findings) -> list[str]:
    """The fact that needs no measurement: images on the 8-bit grid round back to themselves."""
    c = f.run.conditions
    if f.grey is None or c.bits != 8:
        return []
    text = "It is certain that a change below half a grey level is undone: rounding an 8-bit image that was changed "
    text += "by less gives back exactly the untouched image."
    if f.saved_attack and f.run.at(f.saved_attack, "accuracy_saved", 0.5 * f.grey, bits=8) is not None:
        text += " A change of exactly half a level is rounded either to nothing or to a whole level."
    half = f.half(f.strongest) if f.strongest else None
    if half is not None and half.eps < 0.5 * f.grey * (1 - 1e-6):
        text += f" So the {short_size(f, half.eps)} of the headline fool a model that is handed the changed "
        text += "numbers directly, not one that opens a saved 8-bit file."
    return [text]
