"""The headline number: what is left at one size when an ensemble with nothing to tune is added to the attacks."""

from __future__ import annotations

from medrobust.report.comparison import Share, in_words
from medrobust.report.findings import Findings, Verdict
from medrobust.report.noise_words import beside
from medrobust.report.paragraph import Paragraph
from medrobust.report.run import WORST
from medrobust.report.sizes import short_size, size_words
from medrobust.report.words import bounds, count, listing, number, plural, with_interval
from medrobust.results import Row

MEMBERS = {"apgd": "APGD on the cross-entropy", "apgd-margin": "APGD on the margin", "fmn": "FMN", "square": "Square"}


def row(f: Findings) -> Row | None:
    """Accuracy at the headline's size under everything that was tried there; None where there is no headline."""
    info = f.run.conditions.headline
    if info is None:
        return None
    return f.run.at(WORST, "accuracy", info.eps) or f.run.at(info.attack, "accuracy", info.eps)


def note(f: Findings, at: Row) -> str:
    """What stands beside the number: what made it, at which size, and its interval."""
    info = f.run.conditions.headline
    assert info is not None
    who = info.title if at.attack == info.attack else f"{info.title} and the other attacks"
    return f"{who}, {short_size(f, info.eps)} {bounds(at.low, at.high)}".strip()


def paragraph(f: Findings) -> Paragraph | None:
    """The number in a sentence, what made it and what it cost, and how it may be read."""
    info, at = f.run.conditions.headline, row(f)
    if info is None or at is None or at.value is None:
        return None
    title = "The headline number"
    if f.verdict is Verdict.INCONCLUSIVE:
        return Paragraph(title, "Inconclusive: the attacks cannot be believed, and so no number sums them up.", True)
    left = Share.of(at)
    if left is None:
        return None
    text = f"After changes of at most {size_words(f, info.eps)}, {in_words(left)} are still read correctly"
    beside_it = f.beside_noise(at)
    text += f"; {beside(beside_it)}" if beside_it is not None else ""
    text += ". It counts every attack that was tried at "
    text += f"that size, above all {info.title}, an ensemble with nothing to tune that gives each image to "
    two = len(f.run.conditions.classes) == 2  # then both losses make the same steps, and the second is left out
    names = [name for member, name in MEMBERS.items() if not (two and member == "apgd-margin")]
    text += f"{listing(names)} in turn, as long as it holds. "
    alone = f.run.at(info.attack, "accuracy", info.eps)
    if alone is not None and alone.value is not None and at.attack != info.attack:
        text += f"{info.title} by itself leaves {with_interval(alone)}"
        text += "; the rest fell to the others alone. " if alone.value > at.value else ". "
    text += _cost(f) + _broken(f)
    text += "It is an upper bound: a better attack can only lower it. Two classifiers compare by it only on the same "
    text += f"images, at the same size and with the same settings ({info.settings})."
    return Paragraph(title, text, alone is not None and not alone.ok)


def _cost(f: Findings) -> str:
    info = f.run.conditions.headline
    assert info is not None
    per_image = [f.run.at(info.attack, f"{kind}_per_image", info.eps) for kind in ("gradients", "forwards")]
    if any(r is None or r.value is None for r in per_image):
        return ""
    gradients, looks = (number(r.value) for r in per_image if r is not None and r.value is not None)
    return f"It took {gradients} gradients and {looks} further looks at the model an image. "


def _broken(f: Findings) -> str:
    info = f.run.conditions.headline
    assert info is not None
    rows = {m: f.run.at(info.attack, "broken_by", info.eps, member=m) for m in MEMBERS}
    counts = {m: round(r.value * r.n) for m, r in rows.items() if r is not None and r.value and r.n}
    if not counts:
        return ""
    parts = [f"{count(k)} fell to {MEMBERS[m]}" for m, k in counts.items()]
    return f"Of the {plural(sum(counts.values()), 'image')} that it broke, {listing(parts)}. "
