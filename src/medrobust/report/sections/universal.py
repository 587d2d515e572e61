"""One change for every image: what the universal perturbations of an audit did, in sentences, tables and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from medrobust.report import pictures
from medrobust.report import universal_words as words
from medrobust.report.comparison import Relation, Share, relation
from medrobust.report.findings import Findings
from medrobust.report.first_page import FirstPage, checks_fact, clean_fact
from medrobust.report.paragraph import Paragraph
from medrobust.report.schema import UniversalInfo
from medrobust.report.section import Content
from medrobust.report.sizes import short_size, size_words, visibility
from medrobust.report.tables import MOST_CONFUSED, Confusion, Table, TableCell, share
from medrobust.report.verdict import outputs_swapped
from medrobust.report.words import NOTHING, count, listing, percent, plural
from medrobust.results import Kind, Row, among

MAJORITY = 0.9
"""Share of the images in one class from which they are said to pile up there."""

ANCHOR, TITLE, ORDER, NEEDS = "universal", "One change for every image", 50, ("universal",)
COMMANDS = ("audit", "universal")


@dataclass(frozen=True)
class UniversalFigure:
    """One goal: an untouched image, the change, the image with the change, and what the model says."""

    goal: str
    name: str
    clean: str
    change: str
    attacked: str
    factor: str
    true: str
    before: str
    after: str
    width: int


@dataclass(frozen=True)
class UniversalSection:
    """What the page shows of it."""

    sentences: list[str]
    table: Table
    by_class: Table | None
    confusion: Confusion | None
    shots: list[UniversalFigure]
    doubt: str = ""
    """Why some of its numbers are inconclusive."""
    caption: str = ""
    """Of the confusion matrix."""

    @property
    def tables(self) -> list[Table]:
        matrix = [] if self.confusion is None else [self.confusion.table(self.caption, "tab-universal-confusion")]
        return [self.table, *([] if self.by_class is None else [self.by_class]), *matrix]


def build(f: Findings) -> Content | None:
    content = section(f)
    return None if content is None else Content({"content": content}, content.tables)


def section(f: Findings) -> UniversalSection | None:
    """None where the run did not ask for it, or comes from a version that could not."""
    info = f.run.conditions.universal
    if info is None or not any(among(f.run.rows, kind=Kind.UNIVERSAL)):
        return None
    matrix, caption = confusion(f), ""
    if matrix is not None:
        caption = "What the model says without the change (rows) and with it (columns): the change made towards "
        goal = info.goals[0].target
        caption += "any other answer" if goal is None else f.run.labelled(f.run.target_name(goal))
        caption += f", number of test images (n = {count(int(matrix.counts.sum()))}), share of the row."
    return UniversalSection(
        sentences(f, info), table(f, info), by_class(f, info), matrix, shots(f, info), _doubt(f), caption
    )


# -- the rows ------------------------------------------------------------------------------------------------


def _row(f: Findings, metric: str, **more: Any) -> Row | None:
    return f.run.find(Kind.UNIVERSAL, metric, **more)


def _targets(f: Findings, info: UniversalInfo) -> list[str]:
    """Names of the classes towards which one was made, as far as their rows are there."""
    names = [f.run.target_name(g.target) for g in info.goals if g.target is not None]
    return [n for n in names if _row(f, "targeted_success", target=n) is not None]


def _control(f: Findings, info: UniversalInfo, metric: str, **more: Any) -> Row | None:
    """Of the random changes of the same size the one that comes nearest to the goal."""
    rows = [f.run.find(Kind.CONTROL, metric, name, **more) for name in info.controls]
    return max((r for r in rows if r is not None and r.value is not None), key=lambda r: r.value or 0.0, default=None)


def _doubt(f: Findings) -> str:
    notes = [r.note for r in among(f.run.rows, kind=Kind.UNIVERSAL) if not r.ok and r.note]
    return listing(list(dict.fromkeys(notes)))


# -- in words ------------------------------------------------------------------------------------------------


def sentences(f: Findings, info: UniversalInfo) -> list[str]:
    """For a reader who wants to know what it means; every number has its interval and its n."""
    origin = (
        f"It was computed from {plural(info.n_made, 'image')} ({info.made_from}) with full knowledge of the model, "
    )
    origin += f"and then tried on {plural(info.n_judged, 'test image')} that had no part in it. "
    relative = "" if info.zeta is None else f" ({percent(info.zeta, 0)} of the norm of an average image)"
    origin += f"Its size: {size_words(f, info.eps)}{relative}, "
    origin += f"{visibility(f, info.eps)}."
    return [origin, *(s for s in (_fooling(f, info), _cap(f), _towards(f, info), _saved(f, info)) if s)]


def _fooling(f: Findings, info: UniversalInfo, *, brief: bool = False) -> str:
    row = _row(f, "fooling_rate")
    rate = Share.of(row)
    if row is None or rate is None:
        return ""
    if not row.ok:
        return f"Inconclusive: {row.note}. That is no sign of strength."
    before, after = (None if brief else Share.of(_row(f, f"accuracy_{when}")) for when in ("before", "after"))
    return words.fooling(words.Fooling(rate, Share.of(_control(f, info, "fooling_rate")), before, after))


def _cap(f: Findings) -> str:
    """On few classes sending all images into one class is the simplest way, and has an upper end."""
    row, most, matrix = _row(f, "fooling_rate"), Share.of(_row(f, "fooling_cap")), confusion(f)
    if row is None or not row.ok or matrix is None:
        return ""
    into, of, total = matrix.counts.sum(0), matrix.counts.sum(1), max(int(matrix.counts.sum()), 1)
    top, parts = int(into.argmax()), []
    if into[top] >= MAJORITY * total:
        called = f.run.labelled(matrix.classes[top])
        parts.append(words.majority_class(int(into[top]), int(of[top]), total, called))
    if len(matrix.classes) == 2 and most is not None:
        parts.append(words.cap(most))
    return " ".join(parts)


def _towards(f: Findings, info: UniversalInfo, *, brief: bool = False) -> str:
    """The target that would hide a disease, or the one that works best, and how many of the targets work."""
    measured: dict[str, words.Towards] = {}
    for name in _targets(f, info):
        row = _row(f, "targeted_success_new", target=name)
        success = Share.of(row)
        if success is not None and success.ok:
            control = Share.of(_control(f, info, "targeted_success_new", target=name))
            hides = f.directed and f.normal == [name]
            measured[name] = words.Towards(f.run.labelled(name), success, control, hides)
    if not measured:
        return ""
    healthy = [n for n in measured if f.directed and n in f.normal]
    first = max(healthy or measured, key=lambda n: measured[n].success.value)
    text = words.towards(measured[first])
    return text if brief or len(measured) == 1 else f"{text} {words.reached(list(measured.values()))}"


def strongest_goal(f: Findings) -> tuple[Share, Share | None, str] | None:
    """What one change for all images reaches, its control, and the class that it was made towards: any other answer,
    where that is more than random changes reach; else the class that is reached most often. None: not measured."""
    info = f.run.conditions.universal
    if info is None:
        return None
    rate = Share.of(_row(f, "fooling_rate"))
    control = Share.of(_control(f, info, "fooling_rate"))
    if rate is not None and relation(rate, control) is Relation.ABOVE:
        return rate, control, ""
    towards = [
        (success, Share.of(_control(f, info, "targeted_success_new", target=name)), name)
        for name in _targets(f, info)
        if (success := Share.of(_row(f, "targeted_success_new", target=name))) is not None
    ]
    return max(towards, key=lambda found: found[0].value, default=None if rate is None else (rate, control, ""))


def _saved(f: Findings, info: UniversalInfo) -> str:
    row = _row(f, "fooling_rate")
    kept = _row(f, "fooling_rate_saved", bits=info.bits)
    rate, saved = Share.of(row), Share.of(kept)
    if rate is None or saved is None or not rate.ok:
        return ""
    control = Share.of(_control(f, info, "fooling_rate"))
    return words.after_saving(rate, saved, control, str(info.bits))


def paragraph(f: Findings) -> Paragraph | None:
    """The same in two sentences, for the first page."""
    info = f.run.conditions.universal
    if info is None or not any(among(f.run.rows, kind=Kind.UNIVERSAL)):
        return None
    text = " ".join(s for s in (_fooling(f, info, brief=True), _towards(f, info, brief=True)) if s)
    text = f"One single change ({short_size(f, info.eps)}), computed once, was added to every image. {text}"
    return Paragraph("One change for all images", text.strip(), bool(_doubt(f)))


def first_page(f: Findings) -> FirstPage:
    """Of `medrobust universal`: what the one change does, in two sentences."""
    info = f.run.conditions.universal
    if (swapped := outputs_swapped(f)) is not None:
        return FirstPage(*swapped)
    if info is None:
        return FirstPage("Nothing was measured yet.", "", "warn")
    facts = [*clean_fact(f), *checks_fact(f)]
    if f.guessing:
        text = "The classifier is no better than guessing; what it does with a change has no meaning."
        return FirstPage("Nothing follows from this run.", text, "warn", facts)
    summed = paragraph(f)
    text = "" if summed is None else summed.text
    return FirstPage("One change for all images", text, "warn" if summed is None or summed.warn else "bad", facts)


# -- table, matrix, pictures ---------------------------------------------------------------------------------


def table(f: Findings, info: UniversalInfo) -> Table:
    """A goal a row: success, where the images were before, what saving leaves, and chance."""
    row, control = partial(_row, f), partial(_control, f, info)
    bits = info.bits
    body = []
    if row("fooling_rate") is not None:
        body = [
            [
                TableCell("Another answer (fooling rate)"),
                share(row("fooling_rate")),
                share(control("fooling_rate")),
                share(row("fooling_rate_saved", bits=bits)),
                TableCell(NOTHING),
                TableCell(NOTHING),
                TableCell(NOTHING),
            ]
        ]
    for name in _targets(f, info):
        body.append(
            [
                TableCell(f"Read as {f.run.labelled(name)}"),
                share(row("targeted_success", target=name)),
                share(control("targeted_success", target=name)),
                share(row("targeted_success_saved", target=name, bits=bits)),
                share(row("targeted_base", target=name)),
                share(row("targeted_success_new", target=name)),
                share(control("targeted_success_new", target=name)),
            ]
        )
    head = ["Goal", "Reached", "Random change", f"Saved at {bits} bit"]
    head += ["So before", "Reached of the others", "Random change, of the others"]
    caption = f"One change for every image ({info.title}, {short_size(f, info.eps)}), "
    caption += f"on {plural(info.n_judged, 'test image')}, with 95 % intervals. Each goal has a change of its own. "
    caption += f"Random change: of {count(len(info.controls))} kinds of the same size, the one that comes nearest."
    return Table(caption, [TableCell(t) for t in head], body, "tab:universal")


def by_class(f: Findings, info: UniversalInfo) -> Table | None:
    """A class a row, where one change was made: how many images get another answer, and what is read correctly."""
    if len(info.goals) != 1:
        return None
    target = info.goals[0].target
    aim = {} if target is None else {"target": f.run.target_name(target)}
    metrics = [("fooling_rate", aim), ("decided_before", {}), ("decided_after", aim)]
    metrics += [("recall_before", {}), ("recall_after", aim)]
    body = [
        [
            TableCell(f.run.labelled(name)),
            *(share(_row(f, metric, class_name=name, **more)) for metric, more in metrics),
        ]
        for name in f.run.conditions.classes
        if _row(f, "decided_after", class_name=name, **aim) is not None
    ]
    head = ["Class", "Another answer", "Decided so before", "And after", "Read correctly before", "And after"]
    caption = f"By class, on {plural(info.n_judged, 'test image')}, with 95 % intervals. Another answer: of the images "
    caption += "decided so before. Read correctly: of the images of that class."
    if f.several:
        head = ["Finding", "Other answer", "Reported before", "And after", "Read correctly before", "And after"]
        caption = f"By finding, on {plural(info.n_judged, 'test image')} in which it is known, with 95 % intervals."
    return Table(caption, [TableCell(t) for t in head], body, "tab:universal-classes") if body else None


def confusion(f: Findings) -> Confusion | None:
    """Of the first goal, nontargeted in an audit: what the model says without the change and with it."""
    info, counts = f.run.conditions.universal, f.run.arrays.get("universal.confusion")
    classes = f.run.conditions.classes
    if info is None or not info.goals or counts is None or len(classes) > MOST_CONFUSED:
        return None
    if counts.ndim != 3 or counts.shape[1:] != (len(classes),) * 2 or not len(counts):
        return None
    return Confusion(classes, counts[0])


def shots(f: Findings, info: UniversalInfo) -> list[UniversalFigure]:
    parts = [f.run.arrays.get(f"universal.{name}") for name in ("clean", "delta", "attacked")]
    if any(p is None or p.ndim != 4 or len(p) < len(info.examples) for p in parts):
        return []
    clean, delta, attacked = (np.asarray(p) for p in parts)

    out = []
    for i, e in enumerate(info.examples):
        factor = pictures.magnification(delta[i])
        out.append(
            UniversalFigure(
                goal="any other answer" if e.target is None else f.run.labelled(f.run.target_name(e.target)),
                name=e.id,
                clean=pictures.data_uri(clean[i]),
                attacked=pictures.data_uri(attacked[i]),
                change=pictures.data_uri(pictures.magnified(delta[i], factor)),
                factor=f"{factor:g}",
                true=f.run.answer(e.label),
                before=f.run.answer(e.before),
                after=f.run.answer(e.after),
                width=int(clean.shape[-1]),
            )
        )
    return out
