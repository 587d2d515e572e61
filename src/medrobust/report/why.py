"""Why it breaks: what the explanations of an audit show, in sentences, pictures, a figure and a table."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from medrobust.report import pictures
from medrobust.report.charts import MUTED, canvas, svg
from medrobust.report.findings import Findings
from medrobust.report.run import ExplainInfo, Row
from medrobust.report.sizes import short_size
from medrobust.report.tables import Cell, Table
from medrobust.report.words import NBSP, count, grey_levels, number, percent, plural, with_interval

NAME = "explain"
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
DECADES = 2
"""Of the gradient's size that the colours of a saliency map span."""


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


def section(f: Findings) -> Section | None:
    """None where the run did not ask for it, or comes from a version that could not."""
    told = f.run.conditions.explain
    if told is None or not any(r.attack == NAME for r in f.run.rows):
        return None
    notes = dict.fromkeys(r.note for r in f.run.rows if r.attack == NAME and not r.ok and r.note and not r.n)
    said = [s for s in (_steep(f), _enough(f), _wide(f), _moved(f, told), _lesion(f)) if s]
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
        said, table(f, told), shots, caption if shots else "", landscape(f, told), surface,
        ", ".join(notes) if not said else "",
    )  # fmt: skip


def _row(f: Findings, metric: str) -> Row | None:
    row = f.run.find(NAME, f"explain_{metric}")
    return row if row is not None and row.ok else None


def _number(row: Row, scale: float = 1.0) -> str:
    """ "0.41 (0.32 to 0.5)"."""
    parts = [number_signed(scale * v) for v in (row.value, row.low, row.high) if v is not None]
    return parts[0] if len(parts) < 3 else f"{parts[0]} ({parts[1]} to {parts[2]})"


def number_signed(value: float) -> str:
    """Three significant digits, very small ones as a power of ten."""
    if value < 0:
        return "−" + number_signed(-value)
    if 0 < value < 0.001:
        power = math.floor(math.log10(value))
        return f"{value / 10**power:.1f}·10{str(power).translate(RAISED)}"
    return number(value)


def _n(row: Row) -> str:
    return f"n{NBSP}={NBSP}{count(row.n)}"


# -- sentences -------------------------------------------------------------------------------------------


def _steep(f: Findings) -> str:
    along, random = _row(f, "rise-gradient"), _row(f, "rise-random")
    if along is None or random is None:
        return ""
    text = f"One grey level on every pixel, in the worst direction, raises the model's loss by {_number(along)} nats "
    text += f"(median, {_n(along)}); one grey level at random by {_number(random)}. "
    if along.low is not None and random.high is not None and along.low > max(0.0, random.high):
        return text + "The model is steep in a few directions and flat in nearly all others: noise does not find them."
    return text + "So the worst direction is not clearly steeper than any other at this size."


def _enough(f: Findings) -> str:
    lead, slope, enough = _row(f, "margin"), _row(f, "margin-slope"), _row(f, "linear-eps")
    if lead is None or slope is None or enough is None or f.run.conditions.norm != "Linf":
        return ""
    text = f"The right answer leads by {_number(lead)} logits, and each grey level can take away {_number(slope)} of "
    text += f"that: by this estimate {_number(enough)} grey levels are enough. "
    held = _row(f, "foretells")
    if held is None or held.value is None or held.low is None:
        return text
    text += (
        f"Over single images the estimate and the measured ε* have a rank correlation of {_number(held)} ({_n(held)}). "
    )
    if held.low > 0.5:
        return text + "So most of what decides how easily an image breaks can be read off before any attack."
    return text + "So the estimate alone does not tell which images break first."


def _wide(f: Findings) -> str:
    half = _row(f, "saliency-half")
    if half is None:
        return ""
    text = f"Half of what moves the loss lies on {with_interval(half)} of the pixels (median, {_n(half)}; a flat map "
    return text + f"has 50{NBSP}%, a few decisive pixels have nearly none)."


def _moved(f: Findings, told: ExplainInfo) -> str:
    shift, noise = _row(f, "cam-shift.attacked"), _row(f, "cam-shift.noise")
    if shift is None:
        return ""
    text = (
        f"Where the attack ({short_size(f, told.eps)}) turns the answer, the centre of what speaks for it (Grad-CAM) "
    )
    text += f"moves by {with_interval(shift)} of the image's diagonal (median, {_n(shift)})"
    return text + (f"; noise of the same size moves it by {with_interval(noise)}." if noise is not None else ".")


def _lesion(f: Findings) -> str:
    before, after = _row(f, "lesion-points-cam.clean"), _row(f, "lesion-points-cam.attacked")
    area, pixels = _row(f, "lesion-area.clean"), _row(f, "lesion-auroc-gradient.clean")
    if before is None or area is None:
        return ""
    text = "These images were drawn with a known lesion. The brightest point of Grad-CAM lies in it on "
    text += f"{with_interval(before)} of the images ({_n(before)}; by chance {percent(area.value)})"
    text += f", after the attack on {with_interval(after)} ({_n(after)}). " if after is not None else ". "
    if before.low is not None and area.value is not None:
        found = before.low > area.value
        text += "So it looks at the lesion. " if found else "That is not clearly more than chance. "
    if pixels is not None:
        text += f"The gradient tells its pixels from others with an AUROC of {_number(pixels)} (0.5 is chance)."
    return text.strip()


# -- table -----------------------------------------------------------------------------------------------

MAPS = {
    "cam-shift.attacked": ("Shift of the centre of Grad-CAM under the attack", "share of the diagonal"),
    "cam-shift.noise": ("The same under noise of that size", "share of the diagonal"),
    "lesion-points-cam.clean": ("Brightest point of Grad-CAM in the lesion", "share of the images"),
    "lesion-points-cam.attacked": ("The same after the attack", "share of the images"),
    "lesion-points-gradient.clean": ("Largest gradient in the lesion", "share of the images"),
    "lesion-points-gradient.attacked": ("The same after the attack", "share of the images"),
    "lesion-auroc-cam.clean": ("Grad-CAM of pixels in and out of the lesion", "AUROC"),
    "lesion-auroc-cam.attacked": ("The same after the attack", "AUROC"),
    "lesion-auroc-gradient.clean": ("Gradient of pixels in and out of the lesion", "AUROC"),
    "lesion-auroc-gradient.attacked": ("The same after the attack", "AUROC"),
    "foretells": ("Rank correlation of that ε* with the measured one", "−1 to 1"),
}


def table(f: Findings, told: ExplainInfo) -> Table:
    """A measure a row."""
    titles = {m.name: (m.title, m.unit) for m in told.measures} | MAPS
    body = []
    for name, (title, unit) in titles.items():
        row = f.run.find(NAME, f"explain_{name}")
        if row is not None and row.n:
            body.append([Cell(title), Cell(_number(row) if row.ok else "–"), Cell(unit), Cell(count(row.n))])
    caption = (
        "What the explanations say, before any attack unless told otherwise: medians (shares for yes and no) with "
    )
    caption += "95 % intervals, one image a patient."
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
    alt = f"Median loss of {len(planes)} images: {number_signed(10 ** float(logs[0, 0]))} nats at the image, "
    alt += f"{number_signed(10 ** float(logs[-1, 0]))} at {grey_levels(float(grid[-1]))} along the gradient's sign, "
    alt += f"{number_signed(10 ** float(logs[0, -1]))} along random signs."
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
        bar.set_ticks(levels[::3].tolist(), labels=[number_signed(10**v) for v in levels[::3].tolist()])
        bar.set_label("median loss (nats), logarithmic")
        bar.outline.set_edgecolor(MUTED)
        return svg(figure, "landscape", alt)
