"""What a run of `medrobust explain` says first: sentences on the first classifier, and on it beside the others."""

from __future__ import annotations

from collections.abc import Sequence

from medrobust.report import explanation_tables as tables
from medrobust.report import explanation_words as words
from medrobust.report.comparison import Share
from medrobust.report.explained import Explained, explained, pairs
from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, checks_fact
from medrobust.report.paragraph import Paragraph
from medrobust.report.words import count, listing, plural
from medrobust.results import Row


def first_page(f: Findings) -> FirstPage:
    networks = explained(f.run)
    names = listing([e.name for e in networks[1:]])
    title = (
        f"Why it breaks: {networks[0].name}" + (f" beside {names}" if names else "") if networks else "Why it breaks"
    )
    text = "What goes together with breaking need not be its cause. These measures describe a network and its images; "
    text += "whether one of them foretells how easily an image falls is a question of its own."
    banners = [(f"In doubt, {e.name}", doubt) for e in networks for doubt in e.info.doubts]
    banners += [(f"Inconclusive, {e.name}", f"The classifier is {e.info.guesses}.") for e in networks if e.info.guesses]
    banners += [
        ("Inconclusive", f"{c.detail}; {c.consequence}.") for c in f.run.checks if gradient_fails(c.name, c.passed)
    ]
    measured = sentences(networks, pairs(f.run)) if networks else []
    return FirstPage(title, text, "", checks_fact(f), measured, banners)


def gradient_fails(name: str, passed: bool | None) -> bool:
    """Whether a check says that the gradient is not that of the network."""
    return passed is False and "finite differences" in name


def sentences(classifiers: Sequence[Explained], compared: Sequence[Row]) -> list[Paragraph]:
    """What was measured of the first classifier, and beside the others; every number has its interval and its n."""
    first = classifiers[0]

    def others(measure: str, word: str) -> str:
        return words.beside(_beside(classifiers, compared, measure), word)

    sentences_ = [
        ("How steep is the loss?", _steep(first), others("slope-l1", "steeper")),
        ("How widely does it look?", _wide(first), others("saliency-half", "wider")),
        ("How simple is what it sees?", _simple(first), others("relative-rank", "richer")),
        ("What does an attack move?", words.moved(_moved(first)), _lesion(first)),
    ]
    return [Paragraph(title, f"{text} {more}".strip()) for title, text, more in sentences_ if text]


def _steep(e: Explained) -> str:
    slope, clean = Share.of(e.find("slope-l1")), Share.of(e.loss(0))
    rise, random = Share.of(e.loss(1, "gradient")), Share.of(e.loss(1, "random"))
    walk = words.Walk(clean, rise, random) if clean and rise and random else None
    return "" if slope is None else words.steep(slope, walk)


def _wide(e: Explained) -> str:
    half = Share.of(e.find("saliency-half"))
    return "" if half is None else words.wide(half)


def _simple(e: Explained) -> str:
    rank, share = Share.of(e.find("effective-rank")), Share.of(e.find("relative-rank"))
    return words.simple(e.info.middle, rank, share) if rank and share else ""


def _moved(e: Explained) -> words.Moved:
    shift, of_new_class = (Share.of(e.find(name, "change")) for name in ("cam-shift", "cam-shift-asked"))
    noise = Share.of(e.find("cam-shift", "noise"))
    return words.Moved(f"{e.info.attack_title} of {e.size}", e.info.reached, e.info.n, shift, of_new_class, noise)


def _lesion(e: Explained) -> str:
    """How much of Grad-CAM leaves the lesion, where it is known."""
    before, area = Share.of(e.find("lesion-share", map="cam")), Share.of(e.find("lesion-area"))
    change = Share.of(e.find("lesion-share", "change", map="cam"))
    return words.in_lesion(words.InLesion(before, area, change)) if before and area else ""


def _beside(classifiers: Sequence[Explained], compared: Sequence[Row], measure: str) -> list[words.Beside]:
    rows = [(e, tables.compared(compared, place, measure)) for place, e in enumerate(classifiers[1:], start=1)]
    measured = [(e.name, Share.of(row), int(row.get("n_other"))) for e, row in rows if row is not None]
    return [words.Beside(name, larger, n) for name, larger, n in measured if larger is not None]


def gallery(e: Explained) -> str:
    """What is said below its pictures."""
    labels, lesion = e.info.gallery.label, "gallery.mask" in e.arrays
    return words.gallery(words.Gallery(e.name, e.size, len(labels), e.info.n, len(set(labels)), lesion))


def setup(e: Explained) -> list[tuple[str, str]]:
    """The exact conditions of one classifier, as terms and values."""
    i = e.info
    classes = listing(i.classes) if len(i.classes) <= 8 else f"{count(len(i.classes))} classes"
    images = f"{plural(i.n, 'correctly classified test image')}"
    images += ", one a patient" if i.one_a_patient else ", patients not known"
    right = f"{100 * i.accuracy:.1f}\u00a0%" if i.accuracy is not None else "an unknown share"
    landscape = f"{plural(i.surfaces, 'image')}, {len(i.grid)} × {len(i.grid)} points, 0 to 8/255 each way, cut to "
    landscape += "[0, 1]; first axis: sign of the model's gradient; second: random signs"
    landscape += ", and the sign gradient of a second model" if i.second else " (no second model was given)"
    return [
        ("Data", f"{i.data}, {i.size} × {i.size} px, {i.channels} channel(s): {classes}"),
        ("Network", f"{i.architecture or 'own'}, {count(i.parameters)} parameters, {i.model_digest[:12]}"),
        ("Images", f"{images}; the model reads {right} of {count(i.n_test)} correctly"),
        ("Attack", f"{i.attack}, {e.size} ({i.norm}), full strength; turned {i.reached} of {i.n}"),
        ("Layers", f"middle: {i.middle}; Grad-CAM: {i.cam_layer}; simplicity: {listing(i.layers)}"),
        ("Landscape", landscape),
        ("Randomness", f"seed {i.seed}, keyed by image"),
    ]


def sources(classifiers: Sequence[Explained]) -> list[tuple[str, str]]:
    """What each measure is, and where it comes from."""
    measures = {name: m for e in classifiers for name, m in e.info.measures.items()}
    return [(m.title, "; ".join(filter(None, (m.unit, m.source)))) for m in measures.values()]
