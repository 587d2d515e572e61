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
from medrobust.report.findings import Findings
from medrobust.report.run import ExplainInfo
from medrobust.report.section import Content
from medrobust.report.sizes import short_size
from medrobust.report.tables import Cell, Table
from medrobust.report.words import NOTHING, count, grey_levels, plural
from medrobust.results import Kind, among

DECADES = 2
"""Of the gradient's size that the colours of a saliency map span."""

ANCHOR, TITLE, ORDER, NEEDS = "why", "Why it breaks", 80, ("explanation",)


@dataclass(frozen=True)
class Shot:
    """One image and two maps of it, before and after the attack; data URIs."""

    name: str
    true: str
    after: str
    pictures: list[tuple[str, str]]
    """(caption, data URI): image, gradient and Grad-CAM before, then after."""
    width: int


@dataclass(frozen=True)
class Section:
    """What the page shows of it."""

    sentences: list[str]
    table: Table
    shots: list[Shot]
    caption: str
    figure: str
    """The landscape as SVG; empty where there is none."""
    figure_caption: str
    doubt: str = ""


def build(f: Findings) -> Content | None:
    found = section(f)
    return None if found is None else Content({"content": found}, [found.table] if found.table.rows else [])


def section(f: Findings) -> Section | None:
    """None where the run did not ask for it, or comes from a version that could not."""
    told = f.run.conditions.explain
    rows = list(among(f.run.rows, kind=Kind.EXPLANATION))
    if told is None or not rows:
        return None
    notes = dict.fromkeys(r.note for r in rows if not r.ok and r.note)
    said = _sentences(f, told)
    shots = _shots(f, told)
    size = short_size(f, told.eps)
    caption = (
        f"Images that the attack ({told.attack}, {size}) turned. Gradient: how strongly each pixel moves the loss, "
    )
    caption += (
        f"one colour scale for all, {DECADES} powers of ten from dark to bright. Grad-CAM ({told.layer}): what in "
    )
    caption += "the image speaks for the answer given, each map on its own scale."
    surface = (
        "Loss of the right answer when an image is moved along the sign of its gradient (across) and along random "
    )
    surface += (
        f"signs (upwards): median of {plural(told.n_surfaces, 'image')}. White line: where the right answer holds "
    )
    surface += "a probability of one half."
    return Section(
        said,
        table(f, told),
        shots,
        caption if shots else "",
        landscape(f, told),
        surface,
        ", ".join(notes) if not said else "",
    )


def _share(f: Findings, metric: str, attack: str = "none", **more: Any) -> Share | None:
    told = Share.of(f.run.find(Kind.EXPLANATION, metric, attack, **more))
    return told if told is not None and told.ok else None


def _sentences(f: Findings, told: ExplainInfo) -> list[str]:
    """Those whose numbers were measured."""
    out = []
    along, random = _share(f, "rise-gradient"), _share(f, "rise-random")
    if along is not None and random is not None:
        out.append(words.steep(along, random))
    lead, slope, enough = (_share(f, name) for name in ("margin", "margin-slope", "linear-eps"))
    if lead is not None and slope is not None and enough is not None and f.run.conditions.norm == "Linf":
        out.append(words.enough(words.Estimate(lead, slope, enough, _share(f, "rank_correlation"))))
    if (half := _share(f, "saliency-half")) is not None:
        out.append(words.wide(half))
    if (shift := _share(f, "cam-shift", told.attack_name)) is not None:
        out.append(words.moved(shift, _share(f, "cam-shift", "noise"), short_size(f, told.eps)))
    before, area = _share(f, "lesion-points", map="cam"), _share(f, "lesion-area")
    if before is not None and area is not None:
        after = _share(f, "lesion-points", told.attack_name, map="cam")
        pixels = _share(f, "lesion-auroc", map="gradient")
        out.append(words.lesion(words.Lesion(before, area, after, pixels)))
    return out


# -- table -----------------------------------------------------------------------------------------------


def _maps(attack: str) -> list[tuple[str, str, str, str, str]]:
    """Metric, attack, map, title and unit of what is measured on maps, and of the correlation. attack: by name."""
    diagonal, share, area = "share of the diagonal", "share of the images", "AUROC"
    return [
        ("cam-shift", attack, "", "Shift of the centre of Grad-CAM under the attack", diagonal),
        ("cam-shift", "noise", "", "The same under noise of that size", diagonal),
        ("lesion-points", "none", "cam", "Brightest point of Grad-CAM in the lesion", share),
        ("lesion-points", attack, "cam", "The same after the attack", share),
        ("lesion-points", "none", "gradient", "Largest gradient in the lesion", share),
        ("lesion-points", attack, "gradient", "The same after the attack", share),
        ("lesion-auroc", "none", "cam", "Grad-CAM of pixels in and out of the lesion", area),
        ("lesion-auroc", attack, "cam", "The same after the attack", area),
        ("lesion-auroc", "none", "gradient", "Gradient of pixels in and out of the lesion", area),
        ("lesion-auroc", attack, "gradient", "The same after the attack", area),
        ("rank_correlation", "none", "", "Rank correlation of that ε* with the measured one", "−1 to 1"),
    ]


def table(f: Findings, told: ExplainInfo) -> Table:
    """A measure a row."""
    lines: list[tuple[str, str, str, str, str]] = [(m.name, "none", "", m.title, m.unit) for m in told.measures]
    body = []
    for metric, attack, kind, title, unit in [*lines, *_maps(told.attack_name)]:
        more: dict[str, Any] = {"map": kind} if kind else {}
        row = f.run.find(Kind.EXPLANATION, metric, attack, **more)
        if row is not None and row.n:
            known = _share(f, metric, attack, **more)
            body.append([Cell(title), Cell(words.ranged(known) if known else NOTHING), Cell(unit), Cell(count(row.n))])
    caption = (
        "What the explanations say, before any attack unless told otherwise: medians (shares for yes and no) with "
    )
    caption += "95 % intervals" + (", one image a patient." if f.run.conditions.patients_known else ".")
    return Table(caption, [Cell(t) for t in ("Measure", "Value", "Unit", "n")], body, "tab:explain")


# -- pictures --------------------------------------------------------------------------------------------


def _shots(f: Findings, told: ExplainInfo) -> list[Shot]:
    arrays = {k.removeprefix("explain."): v for k, v in f.run.arrays.items() if k.startswith("explain.")}
    levels = [arrays[k] for k in ("clean.gradient", "attacked.gradient") if k in arrays]
    if len(levels) < 2 or len(levels[0]) < len(told.examples):
        return []
    finite = np.concatenate([v[np.isfinite(v)] for v in levels])
    top = float(np.quantile(finite, 0.999)) if finite.size else 0.0
    shots = []
    for i, e in enumerate(told.examples):
        shown = []
        for when, word in (("clean", "before"), ("attacked", "after")):
            level = np.nan_to_num((arrays[f"{when}.gradient"][i] - top) / DECADES + 1, nan=0.0, neginf=0.0)
            cam = arrays[f"{when}.cam"][i]
            shown += [
                (f"image {word}", pictures.data_uri(arrays[f"{when}.image"][i])),
                (f"gradient {word}", pictures.data_uri(_coloured(level))),
                (f"Grad-CAM {word}", pictures.data_uri(_coloured(cam / max(float(cam.max()), 1e-30)))),
            ]
        if "mask" in arrays and arrays["mask"][i].any():
            shown.append(("the lesion", pictures.data_uri(arrays["mask"][i][None])))
        true, after = (f.run.labelled(f.run.class_name(k)) for k in (e.label, e.after))
        shots.append(Shot(e.id, true, after, shown, int(arrays["clean.image"].shape[-1])))
    return shots


def _coloured(values: np.ndarray) -> np.ndarray:
    """(h, w) in [0, 1] to (3, h, w) in cividis: it reads alike with every colour vision (Nuñez et al. 2018)."""
    import matplotlib

    rgb = matplotlib.colormaps["cividis"](np.clip(values, 0, 1))
    return np.moveaxis(np.asarray(rgb)[..., :3], -1, 0)


def landscape(f: Findings, told: ExplainInfo) -> str:
    """Median loss over the plane, as filled contours; empty where there is none."""
    planes = f.run.arrays.get("explain.landscape")
    if planes is None or not len(planes):
        return ""
    grid = np.array(told.grid) * 255
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
