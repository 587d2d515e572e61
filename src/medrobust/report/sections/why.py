"""Why it breaks: what the explanations of an audit show, in sentences, pictures, a figure and a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from medrobust.report import pictures
from medrobust.report import why_words as words
from medrobust.report.charts import MUTED, canvas, svg
from medrobust.report.comparison import Share
from medrobust.report.explained import Explained, explained
from medrobust.report.explanation_tables import finding_lesions
from medrobust.report.findings import Findings
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Table, TableCell
from medrobust.report.words import NOTHING, count, grey_levels, plural
from medrobust.results import group

DECADES = 2
"""Of the gradient's size that the colours of a saliency map span."""

ANCHOR, TITLE, ORDER, NEEDS = "why", "Why it breaks", 80, ("explanation",)
FOLDED = True


@dataclass(frozen=True)
class ExplanationFigure:
    """One image and two maps of it, before and after the attack; data URIs."""

    name: str
    true: str
    after: str
    pictures: list[tuple[str, str]]
    """(caption, data URI): image, gradient and Grad-CAM before, then after."""
    width: int


@dataclass(frozen=True)
class ExplanationSection:
    """What the page shows of it."""

    sentences: list[str]
    tables: list[Table]
    shots: list[ExplanationFigure]
    caption: str
    figure: str
    """The landscape as SVG; empty where there is none."""
    figure_caption: str
    doubt: str = ""


def build(f: Findings) -> Content | None:
    content = section(f)
    return None if content is None else Content({"content": content}, content.tables)


def section(f: Findings) -> ExplanationSection | None:
    """None where the run did not ask for it."""
    classifiers = explained(f.run)
    if not classifiers or not classifiers[0].rows:
        return None
    e = classifiers[0]
    notes = dict.fromkeys(r.note for r in e.rows if not r.ok and r.note)
    size, sentences, shots = short_size(f, e.info.eps), _sentences(f, e), _shots(f, e)
    caption = f"Images that the attack ({e.info.attack_title}, {size}) turned. Gradient: how strongly each pixel moves "
    caption += f"the loss, one colour scale for all, {DECADES} powers of ten from dark to bright. Grad-CAM "
    caption += f"({e.info.cam_layer}): what in the image speaks for the answer given, each map on its own scale."
    surface = "Loss of the right answer when an image is moved along the sign of its gradient (across) and along "
    surface += f"random signs (upwards): median of {plural(e.info.surfaces, 'image')}. White line: where the right "
    surface += "answer holds a probability of one half."
    measured, of_findings = table(f, e), finding_lesions([e])
    return ExplanationSection(
        sentences,
        [t for t in (measured, of_findings) if t is not None and t.rows],
        shots,
        caption if shots else "",
        landscape(e),
        surface,
        ", ".join(notes) if not sentences else "",
    )


def _share(e: Explained, metric: str, when: str = "clean", **columns: Any) -> Share | None:
    share = Share.of(e.find(metric, when, **columns))
    return share if share is not None and share.ok else None


def _correlation(e: Explained) -> Share | None:
    return _share(e, "rank_correlation", measure="linear-eps")


def _sentences(f: Findings, e: Explained) -> list[str]:
    """Those whose numbers were measured."""
    out = []
    along, random = _share(e, "rise-gradient"), _share(e, "rise-random")
    if along is not None and random is not None:
        out.append(words.steep(along, random))
    lead, slope, enough = (_share(e, name) for name in ("margin", "margin-slope", "linear-eps"))
    if lead is not None and slope is not None and enough is not None and f.run.conditions.norm == "Linf":
        out.append(words.enough(words.LinearEstimate(lead, slope, enough, _correlation(e))))
    if (half := _share(e, "saliency-half")) is not None:
        out.append(words.wide(half))
    if (shift := _share(e, "cam-shift", "change")) is not None:
        out.append(words.moved(shift, _share(e, "cam-shift", "noise"), short_size(f, e.info.eps)))
    before, area = _share(e, "lesion-point", map="cam"), _share(e, "lesion-area")
    if before is not None and area is not None:
        after = _share(e, "lesion-point", "attacked", map="cam")
        pixels = _share(e, "lesion-auroc", map="gradient")
        out.append(words.lesion(words.Lesion(before, area, after, pixels)))
    return out


# -- table -----------------------------------------------------------------------------------------------


DIAGONAL, SHARE, AREA, AFTER = "share of the diagonal", "share of the images", "AUROC", "The same after the attack"
MAPS: list[tuple[str, str, dict[str, str], str, str]] = [
    ("cam-shift", "change", {}, "Shift of the centre of Grad-CAM under the attack", DIAGONAL),
    ("cam-shift", "noise", {}, "The same under noise of that size", DIAGONAL),
    ("lesion-point", "clean", {"map": "cam"}, "Brightest point of Grad-CAM in the lesion", SHARE),
    ("lesion-point", "attacked", {"map": "cam"}, AFTER, SHARE),
    ("lesion-point", "clean", {"map": "gradient"}, "Largest gradient in the lesion", SHARE),
    ("lesion-point", "attacked", {"map": "gradient"}, AFTER, SHARE),
    ("lesion-auroc", "clean", {"map": "cam"}, "Grad-CAM of pixels in and out of the lesion", AREA),
    ("lesion-auroc", "attacked", {"map": "cam"}, AFTER, AREA),
    ("lesion-auroc", "clean", {"map": "gradient"}, "Gradient of pixels in and out of the lesion", AREA),
    ("lesion-auroc", "attacked", {"map": "gradient"}, AFTER, AREA),
    (
        "rank_correlation",
        "clean",
        {"measure": "linear-eps"},
        "Rank correlation of that ε* with the measured one",
        "−1 to 1",
    ),
]
"""Metric, images, further columns, title and unit of what is measured on maps, and of the correlation."""


def table(f: Findings, e: Explained) -> Table:
    """A measure a row."""
    measures = [(name, "clean", dict[str, str](), m.title, m.unit) for name, m in e.info.measures.items()]
    body = []
    for metric, when, columns, title, unit in [*measures, *MAPS]:
        row = e.find(metric, when, **columns)
        if row is not None and row.n:
            share = _share(e, metric, when, **columns)
            body.append(
                [
                    TableCell(title),
                    TableCell(words.ranged(share) if share else NOTHING),
                    TableCell(unit),
                    TableCell(count(row.n)),
                ]
            )
    caption = (
        "What the explanations say, before any attack unless told otherwise: medians (shares for yes and no) with "
    )
    caption += "95 % intervals" + (", one image a patient." if f.run.conditions.patients_known else ".")
    return Table(caption, [TableCell(t) for t in ("Measure", "Value", "Unit", "n")], body, "tab:explain")


# -- pictures --------------------------------------------------------------------------------------------


def _shots(f: Findings, e: Explained) -> list[ExplanationFigure]:
    maps = group(e.arrays, "gallery")
    if "gradient" not in maps or len(maps["gradient"]) < len(e.info.gallery.ids):
        return []
    levels = [_level(maps, after) for after in ("", "-attacked")]
    finite = np.concatenate([v[np.isfinite(v)] for v in levels])
    top = float(np.quantile(finite, 0.999)) if finite.size else 0.0
    shots = []
    for i, (name, label, after) in enumerate(zip(*_examples(e), strict=True)):
        pairs = []
        for image, end, level, word in (
            ("clean", "", levels[0], "before"),
            ("attacked", "-attacked", levels[1], "after"),
        ):
            cam = maps[f"cam{end}"][i]
            bright = np.nan_to_num((level[i] - top) / DECADES + 1, nan=0.0, neginf=0.0)
            pairs += [
                (f"image {word}", pictures.data_uri(maps[image][i])),
                (f"gradient {word}", pictures.data_uri(_coloured(bright))),
                (f"Grad-CAM {word}", pictures.data_uri(_coloured(cam / max(float(cam.max()), 1e-30)))),
            ]
        if "mask" in maps and maps["mask"][i].any():
            pairs.append(("the lesion", pictures.data_uri(maps["mask"][i][None])))
        true, turned = (f.run.labelled(e.info.classes[k]) for k in (label, after))
        shots.append(ExplanationFigure(name, true, turned, pairs, int(maps["clean"].shape[-1])))
    return shots


def _examples(e: Explained) -> tuple[list[str], list[int], list[int]]:
    return e.info.gallery.ids, e.info.gallery.label, e.info.gallery.after


def _level(maps: dict[str, np.ndarray], end: str) -> np.ndarray:
    """log10 of the gradient in nats per grey level of one pixel."""
    with np.errstate(divide="ignore"):
        level = np.log(maps[f"gradient{end}"].astype(np.float64))
    level += maps[f"log-scale{end}"].astype(np.float64)[:, None, None]
    return np.asarray((level - math.log(255)) / math.log(10))


def _coloured(values: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1] to (3, h, w) in cividis: it reads alike with every colour vision (Nuñez et al. 2018)."""
    import matplotlib

    rgb = matplotlib.colormaps["cividis"](np.clip(values, 0, 1))
    return np.moveaxis(np.asarray(rgb)[..., :3], -1, 0)


def landscape(e: Explained) -> str:
    """Median loss over the plane, as filled contours; empty where there is none."""
    planes = e.arrays.get("landscape.random")
    if planes is None or not len(planes):
        return ""
    grid = np.array(e.info.grid) * 255
    logs = np.log10(np.maximum(np.median(planes, 0), 1e-6))
    low, high = float(logs.min()), float(logs.max())
    levels = np.linspace(low, max(high, low + 1e-3), 13)
    alt = f"Median loss of {len(planes)} images: {words.signed(10 ** float(logs[0, 0]))} nats at the image, "
    alt += f"{words.signed(10 ** float(logs[-1, 0]))} at {grey_levels(float(grid[-1]))} along the gradient's sign, "
    alt += f"{words.signed(10 ** float(logs[0, -1]))} along random signs."
    with canvas(5.6, 3.9) as (figure, axes):
        axes.grid(False)
        filled = axes.contourf(grid, grid, logs.T, levels=levels, cmap="cividis")
        axes.contour(
            grid, grid, logs.T, levels=[math.log10(math.log(2))], colors="#ffffff", linewidths=1.8, linestyles="solid"
        )
        axes.set_xlabel("along the sign of the gradient (/255)")
        axes.set_ylabel("along random signs (/255)")
        axes.set_aspect("equal")
        bar = figure.colorbar(filled, ax=axes)
        bar.set_ticks(levels[::3].tolist(), labels=[words.signed(10**v) for v in levels[::3].tolist()])
        bar.set_label("median loss (nats), logarithmic")
        bar.outline.set_edgecolor(MUTED)
        return svg(figure, "landscape", alt)
