"""The figures as inline SVG: drawn by matplotlib, coloured by the page, so that light, dark and print all read.

Colours: Okabe & Ito 2008, told apart by every common colour blindness; line style and marker differ too.
"""

from __future__ import annotations

import re
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from io import StringIO
from typing import TYPE_CHECKING

import numpy as np

from medrobust import stats
from medrobust.grey_scale import EIGHT_BITS, GreyScale
from medrobust.report.comparison import Share
from medrobust.report.findings import Findings, in_doubt
from medrobust.report.readings import PointerReading, of_rows, overlay
from medrobust.report.run import WORST
from medrobust.report.words import bounds, number, percent
from medrobust.results import Row, Rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that the page's own variables replace after drawing: exact hex codes used nowhere else.
INK, MUTED, GRID, PAPER = "#010203", "#040506", "#070809", "#0a0b0c"
PALETTE = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--rule)", PAPER: "var(--paper)"}
_VARIABLES |= {colour: f"var(--c{i})" for i, colour in enumerate(PALETTE, start=1)}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES: tuple[str | tuple[int, tuple[float, ...]], ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))

STYLE: dict[str, object] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medrobust",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "axes.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.6,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "text.parse_math": False,
    "xtick.minor.visible": False,
    "ytick.minor.visible": False,
}


@contextmanager
def canvas(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    import matplotlib
    from matplotlib.figure import Figure

    # a class name in a script that the measuring font lacks is still written as text, in the reader's font
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def svg(figure: Figure, name: str, alt: str, readings: Sequence[PointerReading] = ()) -> str:
    """The figure as an <svg> that the page can colour, with an alternative text and ids of its own.

    readings: what its first axes say where the pointer is.
    """
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.S)
    text = re.sub(r'\bid="image[0-9a-f]+"', "", text)  # named by their content: two alike would share a name
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    # the page's font, at the size that matplotlib gave it
    text = re.sub(r"font: (?:[a-z]+ )*([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for code, variable in _VARIABLES.items():
        text = text.replace(code, variable)
    box = re.search(r'viewBox="[^"]*"', text)
    assert box is not None
    text = text.replace("xlink:href", "href")
    head = f'<svg {box[0]} role="img" aria-label="{escape(alt)}">'
    body = text[text.index(">") + 1 :].strip()
    return head + body.removesuffix("</svg>") + overlay(figure, readings) + "</svg>"


def line_style(index: int) -> dict[str, object]:
    """Colour, marker and dash of the index-th series; no two of the first 24 are alike in more than one."""
    return {
        "color": PALETTE[index % len(PALETTE)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[(index // len(PALETTE) + index) % len(DASHES)],
    }


def _percent_axis(axes: Axes, label: str) -> None:
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "25", "50", "75", "100"])
    axes.set_ylabel(f"{label} (%)")


def _levels_text(scale: GreyScale) -> str:
    kind = "8-bit" if scale.levels == EIGHT_BITS else "stored"
    return f"/{scale.levels} = {kind} grey levels"


def _eps_axis(f: Findings, axes: Axes, grid: list[float]) -> Callable[[float], float]:
    """A symmetric-log x axis: 0 has its place on the left, and 0.1 and 10 both read. Returns the unit's scale."""
    linf = f.run.conditions.norm == "Linf"
    scale = f.run.conditions.grey_scale
    unit = scale.unit if linf else 1.0
    grid = sorted({g * unit for g in grid if g > 0 and np.isfinite(g)})
    low, high = (grid[0], grid[-1]) if grid else (0.1, 1.0)
    axes.set_xscale("symlog", linthresh=low, linscale=0.5)
    nice = [m * 10.0**e for e in range(-4, 5) for m in (1, 2, 5)]
    ticks = [0.0] + [t for t in nice if low * 0.99 <= t <= high * 1.01]
    if len(ticks) < 3:
        ticks = [0.0, *sorted({low, high})]
    axes.set_xticks(ticks, [number(t) for t in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(0, high * 1.12)
    axes.set_xlabel(
        f"ε, largest change of a pixel ({_levels_text(scale)})" if linf else f"ε, {f.run.conditions.norm} norm"
    )
    half = 0.5 * scale.unit / scale.greys  # of an 8-bit level
    if linf and low < half < high:
        axes.axvline(half, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=1)
        axes.annotate(
            "½ 8-bit level" if scale.levels != EIGHT_BITS else "½ grey level",
            (half, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, 2),
            textcoords="offset points",
            fontsize=9,
            color=MUTED,
            va="bottom",
        )
    return lambda eps: eps * unit


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        columns = 3 if max(map(len, labels)) < 15 else 2
        look = {"fontsize": 8.5, "handlelength": 2.4, "columnspacing": 1.2}
        figure.legend(handles, labels, loc="outside lower center", ncols=min(columns, len(labels)), **look)


def _line(
    axes: Axes, x: list[float], rows: list[Row], style: dict[str, object], label: str, *, band: bool = True
) -> None:
    """A series with its interval; rows without a value leave a gap, inconclusive ones get a hollow marker."""
    y = np.array([np.nan if r.value is None else r.value for r in rows], dtype=float)
    low = np.array([np.nan if r.low is None else r.low for r in rows], dtype=float)
    high = np.array([np.nan if r.high is None else r.high for r in rows], dtype=float)
    if band:
        axes.fill_between(x, low, high, color=str(style["color"]), alpha=0.13, linewidth=0)
    # matplotlib hides labels that begin with an underscore; a class name may
    label = f"\u200b{label}" if label.startswith("_") else label
    axes.plot(x, y, label=label, clip_on=False, **style)  # type: ignore[arg-type]
    hollow = [i for i, r in enumerate(rows) if not r.ok and r.value is not None]
    if hollow:
        axes.plot(
            [x[i] for i in hollow],
            y[hollow],
            linestyle="none",
            marker=str(style["marker"]),
            clip_on=False,
            color=str(style["color"]),
            markerfacecolor=PAPER,
            markersize=6.5,
            zorder=5,
        )


WORST_LOOK: dict[str, object] = {"color": PALETTE[0], "marker": "", "linestyle": "-", "linewidth": 6, "alpha": 0.4}
"""Broad and pale: the attacks that make it up run on top of it."""
CONTROL_LOOK = (
    {"color": MUTED, "marker": ".", "linestyle": (0, (4, 2))},
    {"color": MUTED, "marker": ".", "linestyle": ":"},
)


def accuracy_curves(f: Findings, alt: str) -> str:
    """Accuracy against eps, an attack a line, with intervals, the noise control and the half grey level."""
    names = [a for a in f.run.measured if f.run.curve(a)]
    everything = names + f.run.controls + f.run.probes
    # one band for the attacks, or their overlap is all that is seen
    bold = f.strongest if f.strongest in names else next(iter(names), None)
    with canvas(4.7, 3.9) as (figure, axes):
        unit = _eps_axis(f, axes, [r.eps for a in everything for r in f.run.curve(a)])
        for i, attack in enumerate(f.run.controls):
            _curve(f, axes, unit, attack, dict(CONTROL_LOOK[i % 2]), band=True)
        for attack in names:
            style = attack_look(f, attack) | _spread(f, attack)
            if in_doubt(f, attack) and attack != WORST:
                style |= {"markerfacecolor": PAPER, "alpha": 0.75}
            _curve(f, axes, unit, attack, style, band=attack == bold)
        for i, attack in enumerate(f.run.probes):
            _points(f, axes, unit, attack, str(line_style(len(f.run.measured) + i)["color"]))
        _percent_axis(axes, "accuracy")
        _legend(figure, axes)
        read = [(f.run.title(a), f.run.curve(a)) for a in everything]
        return svg(figure, "curves", alt, _by_eps(unit, read))


def _by_eps(unit: Callable[[float], float], lines: Sequence[tuple[str, Sequence[Row]]]) -> list[PointerReading]:
    """What lines over eps say at each of their sizes."""
    places = [[(unit(r.eps), f"ε = {number(unit(r.eps))}") for r in rows] for _, rows in lines]
    return [one for (title, rows), at in zip(lines, places, strict=True) for one in of_rows(title, at, rows)]


def attack_look(f: Findings, attack: str) -> dict[str, object]:
    if attack == WORST:
        return dict(WORST_LOOK)
    with_worst = WORST in f.run.measured  # which has the first colour
    return line_style(f.run.attacks.index(attack) + with_worst) | ({"linewidth": 1.1} if with_worst else {})


def _spread(f: Findings, attack: str) -> dict[str, object]:
    """Markers of attacks that run on top of each other take turns along the line, where there is room for it."""
    if attack == WORST or len(f.run.curve(attack)) < 3 * len(f.run.attacks):
        return {}
    return {"markevery": (1 + f.run.attacks.index(attack), max(1, len(f.run.attacks)))}


def _points(f: Findings, axes: Axes, unit: Callable[[float], float], attack: str, colour: str) -> None:
    """A probe at one eps or few: markers with their intervals, no line that suggests a curve."""
    rows = [r for r in f.run.curve(attack) if r.value is not None]
    if not rows:
        return
    for r in rows:
        if r.low is not None and r.high is not None:
            axes.plot([unit(r.eps)] * 2, [r.low, r.high], color=colour, alpha=0.6, linewidth=1.6)
    x, y = [unit(r.eps) for r in rows], np.array([r.value for r in rows], dtype=float)
    label = f"{f.run.title(attack)}, black-box probe (n = {max(r.n for r in rows)})"
    axes.plot(x, y, color=colour, marker="*", markersize=9, linestyle="none", label=label, clip_on=False, zorder=6)


def _curve(
    f: Findings, axes: Axes, unit: Callable[[float], float], attack: str, style: dict[str, object], *, band: bool
) -> None:
    rows = f.run.curve(attack)
    if f.clean is not None:
        start = Rows()
        start.add(f.run.kind(attack), "accuracy", f.clean, attack=attack)
        rows = [*start.rows, *rows]
    label = f.run.title(attack) + (" – inconclusive" if in_doubt(f, attack) else "")
    _line(axes, [unit(r.eps) for r in rows], rows, style, label, band=band)


def min_eps(f: Findings, alt: str) -> str:
    """Share of the correctly read images that are fooled by a change of at most eps, an attack a line."""
    names = [a for a in f.run.measured if (v := f.min_eps(a)) is not None and v.size]
    with canvas(4.7, 3.5) as (figure, axes):
        grid = [float(e) for a in names for e in f.min_eps(a)] + [r.eps for a in names for r in f.run.curve(a)]  # type: ignore[union-attr]
        unit = _eps_axis(f, axes, grid)
        for attack in names:
            sizes, y = reached(np.asarray(f.min_eps(attack)), [r.eps for r in f.run.curve(attack)])
            x = [0.0, *map(unit, sizes[1:])]
            style = attack_look(f, attack) | {"marker": ""}
            label = f.run.title(attack) + (" – inconclusive" if in_doubt(f, attack) else "")
            axes.step(x, y, where="post", label=label, **style)  # type: ignore[arg-type]
        axes.axhline(0.5, color=MUTED, linewidth=0.8, linestyle=(0, (1, 2)))
        _percent_axis(axes, "images fooled")
        _legend(figure, axes)
        read = [(f.run.title(a), f.run.curve(a, "success")) for a in names]
        return svg(figure, "epsstar", alt, _by_eps(unit, read))


def reached(smallest: np.ndarray, tested: Sequence[float]) -> tuple[list[float], list[float]]:
    """Sizes, ascending from 0 to the largest tested or needed, and the share of images fooled at each.

    smallest: of each image, inf where it is never fooled; attacks without a grid may need more than is tested.
    """
    needed = np.sort(smallest[np.isfinite(smallest)]).tolist()
    shares = [k / smallest.size for k in range(len(needed) + 1)]
    return [0.0, *needed, max([0.0, *needed, *tested])], [*shares, shares[-1]]


def series(
    f: Findings, name: str, label: str, lines: list[tuple[str, list[Row]]], alt: str, *, first_wide: bool = False
) -> str:
    """Any share against eps: flips by direction, accuracy after saving.

    first_wide: the first line is drawn broad and pale, so that others that run on top of it can be seen.
    """
    with canvas(4.7, 3.5) as (figure, axes):
        unit = _eps_axis(f, axes, [r.eps for _, rows in lines for r in rows])
        for i, (title, rows) in enumerate(lines):
            style = line_style(i) | ({"linewidth": 6, "alpha": 0.35, "marker": ""} if first_wide and i == 0 else {})
            _line(axes, [unit(r.eps) for r in rows], rows, style, title, band=i == 0 if first_wide else len(lines) <= 2)
        _percent_axis(axes, label)
        _legend(figure, axes)
        return svg(figure, name, alt, _by_eps(unit, lines))


def by_epoch(lines: Mapping[str, Sequence[float]], kept: int, alt: str) -> str:
    """Shares after each epoch of a training, without intervals. kept: the epoch that was kept."""
    with canvas(4.7, 3.1) as (figure, axes):
        for i, (title, values) in enumerate(lines.items()):
            axes.plot(range(1, len(values) + 1), values, label=title, **line_style(i))  # type: ignore[arg-type]
        axes.axvline(kept, color=MUTED, linewidth=0.9, linestyle=":")
        axes.set_xlabel("Epoch")
        axes.locator_params(axis="x", integer=True)
        _percent_axis(axes, "Read rightly")
        _legend(figure, axes)
        return svg(figure, "hardening", alt)


def by_pixels(points: list[tuple[float, Row]], across: str, label: str, alt: str) -> str:
    """A share against a number of pixels, on a logarithmic axis."""
    with canvas(4.7, 3.1) as (figure, axes):
        _line(axes, [pixels for pixels, _ in points], [row for _, row in points], line_style(0), "")
        axes.set_xscale("log")
        axes.set_xlabel(across)
        _percent_axis(axes, label)
        places = [(pixels, f"{number(pixels)} pixels") for pixels, _ in points]
        return svg(figure, "sparsest", alt, of_rows(label, places, [row for _, row in points]))


def by_severity(
    before: Row | None, lines: list[tuple[str, list[Row]]], levels: list[tuple[str, Row]], coloured: int, alt: str
) -> str:
    """Accuracy against the severity of corruptions, a corruption a line; the first ``coloured`` stand out.

    before: at severity 0. levels: an accuracy that does not depend on it, such as that under an attack.
    """
    with canvas(4.7, 3.9) as (figure, axes):
        start = [] if before is None else [before]
        grey: dict[str, object] = {"color": MUTED, "marker": "", "linestyle": "-", "linewidth": 0.8, "alpha": 0.6}
        for i, (title, rows) in reversed(list(enumerate(lines))):
            whole = [*start, *rows]
            style = line_style(i + 1) if i < coloured else grey
            label = title if i < coloured else ("other corruptions" if i == coloured else "")
            _line(axes, [float(r.get("severity")) for r in whole], whole, style, label, band=i == 0)
        for i, (title, row) in enumerate(levels):
            style = (
                {"color": PALETTE[0], "marker": "", "linestyle": "-"} if i == 0 else {**CONTROL_LOOK[0], "marker": ""}
            )
            _line(axes, [0.0, 5.0], [row, row], style, title)
        axes.set_xlim(0, 5.08)
        axes.set_xticks(range(6))
        axes.set_xlabel("severity of the corruption")
        _percent_axis(axes, "accuracy")
        _legend(figure, axes)
        read = []
        for title, rows in lines:
            severities = [float(r.get("severity")) for r in rows]
            read += of_rows(title, [(s, f"severity {s:g}") for s in severities], rows)
        return svg(figure, "corruptions", alt, read)


def beside_controls(groups: list[tuple[str, list[tuple[str, Row]]]], level: tuple[str, Row] | None, alt: str) -> str:
    """Shares side by side, a group a place, the first of each filled. level: one of no group, as a line."""
    read: list[PointerReading] = []
    looks: dict[str, dict[str, object]] = {}
    with canvas(4.7, 3.6) as (figure, axes):
        for x, (title, rows) in enumerate(groups):
            for i, (name, row) in enumerate(rows):
                known = name in looks
                colour, marker = (PALETTE[0], MARKERS[0]) if i == 0 else (MUTED, MARKERS[1:][len(looks) - 1])
                look = looks.setdefault(name, {"color": colour, "marker": marker, "markersize": 6, "linestyle": "none"})
                at, fill = x + 0.16 * (i - (len(rows) - 1) / 2), PAPER if i or not row.ok else colour
                if row.low is not None and row.high is not None:
                    axes.plot([at, at], [row.low, row.high], color=colour, alpha=0.5, linewidth=2)
                label, value = "" if known else name, np.nan if row.value is None else row.value
                axes.plot([at], [value], label=label, clip_on=False, markerfacecolor=fill, **look)  # type: ignore[arg-type]
                read += of_rows(name, [(float(x), title)], [row])
        if level is not None and level[1].value is not None:
            axes.axhline(level[1].value, label=level[0], color=PALETTE[1], linewidth=1, linestyle=(0, (4, 2)))
        axes.set_xlim(-0.5, len(groups) - 0.5)
        axes.set_xticks(range(len(groups)), [textwrap.fill(title, 13) for title, _ in groups], fontsize=8.5)
        _percent_axis(axes, "images turned")
        _legend(figure, axes)
        return svg(figure, "beyond", alt, read)


def pareto(points: Sequence[tuple[str, Share, Share, bool]], alt: str) -> str:
    """Shares on untouched images against shares under attack, with both intervals: (title, clean, robust, on front).

    Those on the front are filled and named.
    """
    with canvas(6.4, 5.2) as (figure, axes):
        for i, (title, clean, robust, best) in enumerate(points):
            style = line_style(i) | {"linestyle": "none", "markersize": 7}
            colour = str(style["color"])
            if clean.low is not None and clean.high is not None:
                axes.plot([clean.low, clean.high], [robust.value] * 2, color=colour, alpha=0.45, linewidth=1.4)
            if robust.low is not None and robust.high is not None:
                axes.plot([clean.value] * 2, [robust.low, robust.high], color=colour, alpha=0.45, linewidth=1.4)
            fill = colour if best else PAPER
            axes.plot([clean.value], [robust.value], label=title, markerfacecolor=fill, zorder=5, **style)  # type: ignore[arg-type]
            if best:
                right = clean.value > np.mean([p[1].value for p in points])
                above = all(not 0 < other.value - robust.value < 0.08 for _, _, other, front in points if front)
                axes.annotate(
                    title,
                    (clean.value, robust.value),
                    xytext=(-9 if right else 9, 9 if above else -14),
                    textcoords="offset points",
                    ha="right" if right else "left",
                    fontsize=9,
                    zorder=6,
                )
        axes.set_xlabel("accuracy on untouched images (%)")
        axes.xaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
        _percent_axis(axes, "withstand an attacker who knows the defence")
        _legend(figure, axes)
        return svg(figure, "pareto", alt)


def reliability(probability: np.ndarray, labels: np.ndarray, alt: str) -> str:
    """Confidence against accuracy in bins of equal size, with Wilson intervals; the diagonal is perfect."""
    confidence, correct = probability.max(1), probability.argmax(1) == labels
    order = np.argsort(confidence, kind="stable")
    parts = np.array_split(order, max(1, min(10, order.size // 10)))
    read: list[PointerReading] = []
    with canvas(3.6, 3.2) as (figure, axes):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        for part in parts:
            share, x = stats.proportion(correct[part]), float(confidence[part].mean())
            axes.plot([x, x], [share.low, share.high], color=PALETTE[1], alpha=0.5, linewidth=2)
            axes.plot([x], [share.value], color=PALETTE[1], marker="o", markersize=5.5, clip_on=False)
            text = f"{percent(share.value)} {bounds(share.low, share.high)} read correctly, n = {share.n}"
            read.append(PointerReading(x, f"confidence {100 * x:.1f} %", text))
        left = np.floor(min(float(confidence.min()), 0.9) * 10) / 10
        ticks = [t for t in np.linspace(0, 1, 11) if t >= left - 1e-9][:: 2 if left < 0.5 else 1]
        axes.set_xlim(left, 1.01)
        axes.set_xticks(ticks, [f"{100 * t:.0f}" for t in ticks])
        axes.set_xlabel("confidence of the model (%)")
        _percent_axis(axes, "images read correctly")
        return svg(figure, "reliability", alt, read)
