"""Changes that a file can hold: the smallest in whole levels, the fewest pixels by one; a curve and pictures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medrobust.report import charts, pictures
from medrobust.report.comparison import Share, in_words, numbers
from medrobust.report.findings import Findings
from medrobust.report.run import same
from medrobust.report.section import Content
from medrobust.report.tables import Table, TableCell, share
from medrobust.report.words import NOTHING, bounds, count, grey_levels, number, percent, plural
from medrobust.results import Kind, Row, among, find

ANCHOR, TITLE, ORDER, NEEDS = "sparsest", "What a file can hold", 31, ("stored",)
FOLDED = True
TITLES = {"sparsest": "Search", "one shot": "The first gradient's order alone"}


@dataclass(frozen=True)
class SparseExample:
    """An image, the pixels of it that change, and the changed image, as data URIs; pixels: how many change."""

    clean: str
    places: str
    attacked: str
    pixels: int
    width: int


def build(f: Findings) -> Content | None:
    medians = [row for name in TITLES if (row := _row(f, "pixels_median", name)) is not None]
    if not medians:
        return None
    levels = int(medians[0].get("levels"))
    curve = sorted(among(f.run.rows, kind=Kind.STORED, metric="turned_within"), key=_pixels)
    table = _table(f, medians, levels)
    sentences = _sentences(f, medians[0], levels)
    figures = {"sparsest": _chart(curve, levels)} if any(row.value is not None for row in curve) else {}
    return Content(
        {"sentences": sentences, "table_": table, "shown": _examples(f), "level": step(levels)}, [table], figures
    )


def step(levels: int) -> str:
    """ "one grey level (of 255)", "one stored level (of 4 095)"."""
    return f"one {'grey' if levels == 255 else 'stored'} level (of {count(levels)})"


def _row(f: Findings, metric: str, attack: str) -> Row | None:
    return find(f.run.rows, kind=Kind.STORED, metric=metric, attack=attack)


def _pixels(row: Row) -> int:
    return int(row.get("pixels", 0))


def _sentences(f: Findings, median: Row, levels: int) -> list[str]:
    pixels = f" of {count(f.run.conditions.pixels)}" if f.run.conditions.pixels else ""
    never = Share.of(_row(f, "not_by_one_level", median.attack))
    out = [*_smallest(f, levels)]
    if median.value is not None:
        out.append(
            f"Half of the images are turned by changing {_number(median)}{pixels} pixels by {step(levels)}, "
            f"n = {count(median.n)}."
        )
    if never is not None:
        out.append(f"For {in_words(never)} no change by {step(levels)} was found, of any number of pixels.")
    noise, before = _noise(f, levels), Share.of(f.clean)
    if noise is not None and before is not None:
        out.append(
            f"Random noise of one level in every pixel leaves {in_words(noise)} read correctly; before it was "
            f"{numbers(before)}."
        )
    return out


def _noise(f: Findings, levels: int) -> Share | None:
    """The control: accuracy under random noise of one level in every pixel; None where it was not measured."""
    rows = [r for a in f.run.controls for r in f.run.curve(a) if same(r.eps, 1 / levels)]
    return Share.of(rows[0]) if rows else None


def _smallest(f: Findings, levels: int) -> list[str]:
    """The median eps in whole levels beside that of images that are not rounded."""
    both = [find(f.run.rows, kind=Kind.STORED, metric="min_eps_median", levels=k) for k in (levels, 0)]
    file, exact = ((None if row is None or row.value is None or not row.ok else row) for row in both)
    if file is None or f.run.conditions.norm != "Linf":
        return []
    text = f"Among images that a file can hold, {f.run.title(file.attack)} turns half of them by a change of "
    text += f"{_levels(file, levels)} at most a pixel (whole levels only, n = {count(file.n)})"
    if exact is not None:
        text += f"; without rounding by {_levels(exact, levels, 2)}"
    return [f"{text}."]


def _levels(row: Row, levels: int, digits: int = 0) -> str:
    """ "2 grey levels (1–3)"."""
    assert row.value is not None
    text = grey_levels(row.value * levels)
    return f"{text} {bounds(row.low, row.high, digits, levels)}".strip()


def _number(row: Row) -> str:
    assert row.value is not None
    return f"{number(row.value)} {bounds(row.low, row.high, 0, 1)}".strip()


def _table(f: Findings, medians: list[Row], levels: int) -> Table:
    body = [
        [
            TableCell(TITLES[row.attack], not row.ok and row.value is not None),
            TableCell(NOTHING if row.value is None else _number(row)),
            share(_row(f, "not_by_one_level", row.attack)),
        ]
        for row in medians
    ]
    head = ["How pixels were chosen", "Pixels, median", "Not by one level"]
    caption = f"Pixels changed by {step(levels)} that turn an image, of those read correctly "
    caption += f"({plural(medians[0].n, 'image')}), with 95 % intervals. A pixel counts once, however many of its "
    caption += "channels change; no median where most images are not turned."
    return Table(caption, [TableCell(t) for t in head], body, "tab:sparsest")


def _chart(curve: list[Row], levels: int) -> str:
    """Share of images turned against the number of pixels."""
    alt = f"Share of images turned by changing at most so many pixels by {step(levels)}: " + ", ".join(
        f"{count(_pixels(r))} pixels {percent(r.value, 0)}" for r in curve[::4]
    )
    points = [(float(_pixels(row)), row) for row in curve]
    return charts.by_pixels(points, f"pixels changed by {step(levels)}, at most", "images turned", alt)


def _examples(f: Findings) -> list[SparseExample]:
    clean, attacked = f.run.arrays.get("sparsest.clean"), f.run.arrays.get("sparsest.attacked")
    if clean is None or attacked is None or clean.shape != attacked.shape or clean.ndim != 4:
        return []
    shown = []
    for before, after in zip(clean, attacked, strict=True):
        places = np.any(before != after, 0)
        marked = np.where(places, 1.0, 0.25 * before.mean(0))[None]
        clean_, places_, attacked_ = (pictures.data_uri(v) for v in (before, marked, after))
        shown.append(SparseExample(clean_, places_, attacked_, int(places.sum()), int(before.shape[-1])))
    return shown
