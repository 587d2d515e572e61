"""The figures of explanations: galleries, distributions, layers, and the loss landscape as profile, contour, surface.

What is compared shares one scale, within a classifier and between them. viridis and cividis (Nuñez et al. 2018) read
the same for every common colour blindness and in grey.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from medrobust import stats
from medrobust.report.charts import INK, MUTED, STYLE, line_style, svg
from medrobust.report.explained import Explained
from medrobust.report.explanation_tables import KINDS, signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

MAPS, LOSSES = "viridis", "cividis"
DRAWN = (
    ("saliency-half", "Half of the gradient lies on", "% of the pixels", 100, False),
    ("saliency-gini", "Concentration of the gradient", "Gini", 1, False),
    ("slope-l1", "Slope of the loss", "nats a grey level", 1, True),
    ("curvature", "Largest Hessian eigenvalue", "nats / L2²", 1, True),
    ("relative-rank", "Rank of the middle layer", "% of the largest", 100, False),
    ("linear-eps", "Lead over its slope", "/255", 1, True),
)
"""Measures whose distribution is drawn: name, title, unit, factor, logarithmic."""


@contextmanager
def _sheet(width: float, height: float) -> Iterator[Figure]:
    import matplotlib
    from matplotlib.figure import Figure

    # image.composite_image: each image keeps its own pixels in the SVG
    style = STYLE | {"font.size": 9, "image.composite_image": False}
    with matplotlib.rc_context(style), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield Figure(figsize=(width, height), layout="constrained")


# -- galleries -----------------------------------------------------------------------------------------------


def galleries(runs: list[Explained]) -> list[str]:
    """One figure a classifier: its images and what they look like from inside, on scales that all of them share.

    None of a classifier whose pictures were left out.
    """
    runs = [run for run in runs if "gallery.clean" in run.arrays]
    if not runs:
        return []
    raw = [_lengths(run) for run in runs]
    top = float(np.percentile(np.concatenate([r.ravel() for r in raw]), 99.5))
    relative = [
        _relative(run.arrays[f"gallery.{name}"]) for run in runs for name in ("gradient", "smooth", "integrated")
    ]
    spread = float(np.percentile(np.concatenate([r.ravel() for r in relative]), 99))
    return [_gallery(run, lengths, top, spread, k) for k, (run, lengths) in enumerate(zip(runs, raw, strict=True))]


def _lengths(run: Explained) -> np.ndarray:
    """The input gradient at its true length, in nats per unit of a pixel."""
    scale = np.exp(run.arrays["gallery.log-scale"].astype(np.float64))[:, None, None]
    return np.asarray(np.nan_to_num(run.arrays["gallery.gradient"] * scale))


def _relative(maps: np.ndarray) -> np.ndarray:
    """Each map over its own mean."""
    mean = maps.mean((1, 2), keepdims=True)
    relative: np.ndarray = np.divide(maps, mean, out=np.zeros_like(maps), where=mean > 0)
    return relative


def _gallery(run: Explained, lengths: np.ndarray, top: float, spread: float, k: int) -> str:
    arrays = run.arrays
    n, middle = len(lengths), arrays["gallery.layer"]
    inside = (float(middle.min()), float(max(middle.max(), middle.min() + 1e-9)))
    rows: list[tuple[str, np.ndarray, tuple[float, float] | None, str]] = [
        ("image", arrays["gallery.clean"], None, "pixel"),
        ("input gradient,\nas published", lengths, (0, top), "nats / pixel unit"),
        ("the same over\nits own mean", _relative(arrays["gallery.gradient"]), (0, spread), "times the mean"),
        ("SmoothGrad", _relative(arrays["gallery.smooth"]), (0, spread), "times the mean"),
        ("integrated\ngradients", _relative(arrays["gallery.integrated"]), (0, spread), "times the mean"),
        ("Grad-CAM\nbefore", arrays["gallery.cam"], (0, 1), "of its largest"),
        ("Grad-CAM\nafter the attack", arrays["gallery.cam-attacked"], (0, 1), "of its largest"),
        (f"mean of layer\n{run.info.middle}", middle, inside, "activation"),
    ]
    width, height = 1.35 + 1.12 * n + 0.75, 1.17 * len(rows) + 0.45
    left, top_edge, step, side = 1.3, 0.4, 1.12, 1.06
    with _sheet(width, height) as figure:
        figure.set_layout_engine("none")
        # all panels in one axes, measured in inches from the top left: axes for each would take most of the time
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
        axes.axis("off")
        for r, (title, maps, limits, unit) in enumerate(rows):
            y = top_edge + step * r
            for i in range(n):
                _panel(axes, (left + step * i, y, side), run, i, maps[i], limits, overlay="Grad-CAM" in title)
            axes.text(left - 0.06, y + side / 2, title, ha="right", va="center", fontsize=8.5)
            bar = ((left + step * n) / width, 1 - (y + side) / height, 0.09 / width, side / height)
            _bar(figure, limits or (0, 1), unit, MAPS if limits else "gray", into=figure.add_axes(bar))
        for i in range(n):
            axes.text(
                left + step * i + side / 2, top_edge - 0.05, _caption(run, i), ha="center", va="bottom", fontsize=7.5
            )
        alt = f"{n} images of {run.name} with input gradient, SmoothGrad, integrated gradients, Grad-CAM before and "
        return svg(figure, f"gallery{k}", alt + "after the attack, and the mean of a middle layer.")


def _caption(run: Explained, i: int) -> str:
    label, after = (run.info.classes[indices[i]] for indices in (run.info.gallery.label, run.info.gallery.after))
    if not run.info.gallery.reached[i]:
        after = "held"
    elif run.info.gallery.moved:
        first, *more = run.info.gallery.moved[i]
        after = f"{_cut(first)} …" if more else first
    return f"{_cut(label)}\n→ {_cut(after)}"


def _cut(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"


def _panel(
    axes: Axes,
    place: tuple[float, float, float],
    run: Explained,
    i: int,
    values: np.ndarray,
    limits: tuple[float, float] | None,
    *,
    overlay: bool,
) -> None:
    """Draw one image. place: its left, top and side in the coordinates of ``axes``, in which y grows downwards."""
    x, y, side = place

    def show(pixels: np.ndarray, colours: str, low: float, high: float, alpha: float = 1.0) -> None:
        axes.imshow(
            pixels,
            cmap=colours,
            vmin=low,
            vmax=high,
            alpha=alpha,
            interpolation="none",
            aspect="auto",
            extent=(x, x + side, y + side, y),
        )
        axes.set(xlim=axes_x, ylim=axes_y)

    axes_x, axes_y = axes.get_xlim(), axes.get_ylim()
    image = run.arrays["gallery.clean"][i]
    if limits is None:
        show(_picture(values), "gray", 0, 1)
        if "gallery.mask" in run.arrays and (mask := run.arrays["gallery.mask"][i]).max() >= 0.5:
            rows, columns = ((np.arange(k) + 0.5) / k for k in mask.shape)
            axes.contour(x + side * columns, y + side * rows, mask, [0.5], colors="#e69f00", linewidths=0.8)
        return
    if not overlay:
        show(values, MAPS, *limits)
        return
    top = float(values.max())
    show(_picture(image).mean(-1) if image.shape[0] > 1 else image[0], "gray", 0, 1)
    show(values / top if top > 0 else values, MAPS, 0, 1, alpha=0.6)
    if top > 0:
        rows, columns = ((k + 0.5) / n for k, n in zip(np.indices(values.shape), values.shape, strict=True))
        axes.plot(
            x + side * (columns * values).sum() / values.sum(),
            y + side * (rows * values).sum() / values.sum(),
            marker="+",
            markersize=9,
            markeredgewidth=1.8,
            color="#d55e00",
        )


def _picture(image: np.ndarray) -> np.ndarray:
    return image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)


def _bar(
    figure: Figure | SubFigure,
    limits: tuple[float, float],
    unit: str,
    colours: str,
    *,
    beside: list[Axes] | None = None,
    into: Axes | None = None,
) -> None:
    """The shared colour scale: in axes of its own, or beside some."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    place: dict[str, Any] = {"cax": into}
    if into is None:
        place = {"ax": beside, "fraction": 0.05, "pad": 0.01, "aspect": 12}
    bar = figure.colorbar(ScalarMappable(Normalize(*limits), colours), **place)
    bar.set_ticks([limits[0], limits[1]], labels=[_tick(limits[0]), _tick(limits[1])])
    for label, place_ in zip(bar.ax.get_yticklabels(), ("bottom", "top"), strict=True):
        label.set(verticalalignment=place_)
    bar.set_label(unit, fontsize=7.5)
    bar.ax.tick_params(labelsize=7.5, length=2)
    bar.ax.grid(visible=False)
    bar.outline.set_visible(False)


def _tick(value: float) -> str:
    return signed(float(f"{value:.2g}"))


# -- distributions and layers --------------------------------------------------------------------------------


def measures(runs: list[Explained]) -> str:
    """A dot an image, and the median with its interval; a panel a measure, a line a classifier. Empty where none of
    DRAWN was measured."""
    drawn = [d for d in DRAWN if any(run.values(d[0]).size for run in runs)]
    if not drawn:
        return ""
    columns = 2
    lines = -(-len(drawn) // columns)
    with _sheet(7.4, lines * (0.75 + 0.34 * len(runs))) as figure:
        axes = figure.subplots(lines, columns, squeeze=False).ravel()
        for panel in axes[len(drawn) :]:
            panel.set_visible(False)
        for place, (panel, (name, title, unit, factor, logarithmic)) in enumerate(zip(axes, drawn, strict=False)):
            for k, run in enumerate(runs):
                _strip(panel, run.values(name) * factor, len(runs) - 1 - k, k, logarithmic)
            if logarithmic:
                _logarithmic(panel)
            names = [f"{run.name}" for run in runs] if place % columns == 0 else [""] * len(runs)
            panel.set_yticks(range(len(runs) - 1, -1, -1), names)
            panel.set_ylim(-0.6, len(runs) - 0.4)
            panel.set_title(title, fontsize=9, loc="left")
            panel.set_xlabel(unit, fontsize=8.5)
            panel.grid(axis="y", visible=False)
        alt = "Distribution over images of " + ", ".join(d[1].lower() for d in drawn) + ", one line a classifier."
        return svg(figure, "measures", alt)


def _logarithmic(axes: Axes) -> None:
    """A logarithmic axis whose ticks are written as the page writes numbers; left linear within a factor of 3."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    drawn = np.concatenate([line.get_xdata() for line in axes.lines]) if axes.lines else np.array([low, high])
    span = float(drawn.max() / drawn.min()) if drawn.size and drawn.min() > 0 else 1.0
    if span < 3:
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if span > 100 else (1.0, 2.0, 5.0), numticks=5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _strip(axes: Axes, values: np.ndarray, y: int, k: int, logarithmic: bool) -> None:
    values = values[values > 0] if logarithmic else values
    if not values.size:
        return
    colour, e = str(line_style(k)["color"]), stats.median(values)
    # spread by the golden ratio: even, and the same every time
    height = y + 0.22 * (2 * ((np.arange(values.size) * 0.618034) % 1) - 1)
    axes.plot(values, height, ".", color=colour, alpha=0.35, markersize=4)
    axes.plot([e.low, e.high], [y, y], color=INK, linewidth=2.4, solid_capstyle="butt")
    axes.plot([e.value], [y], marker="|", markersize=15, markeredgewidth=2.2, color=INK)


def layers(runs: list[Explained]) -> str:
    """Simplicity against depth, before (filled) and after the attack (hollow), a panel a measure."""
    kinds = KINDS[1:]
    with _sheet(7.4, 3.1) as figure:
        axes = figure.subplots(1, len(kinds), squeeze=False)[0]
        for panel, (kind, title) in zip(axes, kinds, strict=True):
            for k, run in enumerate(runs):
                _depth(panel, run, kind, k)
            panel.set_title(title, fontsize=9, loc="left")
            panel.set_ylim(0, 1.03)
            panel.set_xlim(-0.06, 1.06)
            panel.set_xticks([0, 0.5, 1], ["first", "middle", "last"])
            panel.set_xlabel("layer", fontsize=8.5)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2)
        alt = "Effective rank, spectral and spatial entropy against depth, one line a classifier, before and after."
        return svg(figure, "layers", alt)


def _depth(axes: Axes, run: Explained, kind: str, k: int) -> None:
    names, style = run.info.layers, line_style(k)
    place = np.linspace(0, 1, len(names)) if len(names) > 1 else np.array([0.5])
    for when, fill, dash in (("clean", str(style["color"]), "-"), ("attacked", "none", ":")):
        rows = [run.find(kind, when, layer=layer) for layer in names]
        y, low, high = (
            np.array(numbers, dtype=float)
            for numbers in zip(*((np.nan,) * 3 if r is None else r.estimate[:3] for r in rows), strict=True)
        )
        if when == "clean":
            axes.fill_between(place, low, high, color=str(style["color"]), alpha=0.15, linewidth=0)
        label = f"{run.name}{', attacked' if when == 'attacked' else ''}"
        axes.plot(
            place,
            y,
            color=str(style["color"]),
            linestyle=dash,
            marker=str(style["marker"]),
            markerfacecolor=fill,
            label=label,
        )


# -- landscape -----------------------------------------------------------------------------------------------


def profile(runs: list[Explained]) -> str:
    """Loss along the gradient's sign, a second model's and a random direction, median with its interval."""
    lines = (
        ("gradient", "-", "own gradient"),
        ("second", (0, (5, 1.5)), "second model"),
        ("random", (0, (1, 1.2)), "random"),
    )
    from matplotlib.ticker import FuncFormatter

    with _sheet(8.6, 4.2) as figure:
        axes = figure.subplots()
        for k, run in enumerate(runs):
            for direction, dash, title in lines:
                plane = "landscape.second" if direction == "second" else "landscape.random"
                if plane not in run.arrays:
                    continue
                surface = run.arrays[plane].astype(np.float64)
                values = surface[:, :, 0] if direction == "gradient" else surface[:, 0, :]
                grid = np.array(run.info.grid) * 255
                medians = [stats.median(v) for v in values.T]
                colour = str(line_style(k)["color"])
                axes.fill_between(
                    grid, [e.low for e in medians], [e.high for e in medians], color=colour, alpha=0.12, linewidth=0
                )
                label = f"{run.name}: {title} (n = {len(values)})"
                axes.plot(grid, [e.value for e in medians], color=colour, linestyle=dash, label=label)
        axes.set_yscale("symlog", linthresh=0.1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("distance from the image (/255 of every pixel)")
        axes.set_ylabel("cross-entropy (nats)")
        figure.legend(loc="outside lower center", ncols=2, handlelength=2.8)
        return svg(figure, "profile", "Loss against the distance from the image, one line a direction and classifier.")


def planes(runs: list[Explained]) -> list[tuple[Explained, str, np.ndarray]]:
    """Every plane that was computed, (n, 17, 17) each."""
    names = (("second", "sign gradient of a second model"), ("random", "random signs"))
    return [
        (run, title, run.arrays[f"landscape.{name}"].astype(np.float64))
        for run in runs
        for name, title in names
        if f"landscape.{name}" in run.arrays
    ]


def _top(all_planes: list[tuple[Explained, str, np.ndarray]], *, single: bool) -> float:
    """The end of the shared colour scale."""
    values = [p if single else np.median(p, 0) for _, _, p in all_planes]
    return max(float(np.percentile(np.concatenate([v.ravel() for v in values]), 99.5 if single else 100)), 1e-6)


def contours(runs: list[Explained]) -> str:
    """The median loss over both directions, as contours on one colour scale."""
    surfaces = planes(runs)
    columns = 3
    lines, top = -(-len(surfaces) // columns), _top(surfaces, single=False)
    with _sheet(8.2, 2.85 * lines) as figure:
        axes = figure.subplots(lines, columns, squeeze=False)
        for panel in axes.ravel()[len(surfaces) :]:
            panel.set_visible(False)
        for panel, (run, title, values) in zip(axes.ravel(), surfaces, strict=False):
            grid = np.array(run.info.grid) * 255
            middle = np.median(values, 0).T
            panel.contourf(grid, grid, middle, levels=np.linspace(0, top, 21), cmap=LOSSES)
            lines_drawn = panel.contour(
                grid, grid, middle, levels=np.linspace(0, top, 6)[1:-1], colors="white", linewidths=0.8
            )
            panel.clabel(lines_drawn, fmt="%.2g", fontsize=7)
            panel.set_aspect("equal")
            panel.grid(visible=False)
            panel.set_title(f"{run.name}\nn = {len(values)}", fontsize=8.5)
            panel.set_xlabel("own sign gradient (/255)", fontsize=8)
            panel.set_ylabel(f"{title} (/255)", fontsize=8)
            panel.set_xticks([0, 2, 4, 6, 8])
            panel.set_yticks([0, 2, 4, 6, 8])
        _bar(figure, (0, top), "median cross-entropy (nats)", LOSSES, beside=list(axes.ravel()))
        return svg(figure, "contours", "Median loss over two directions for each classifier, as contours on one scale.")


def surface(runs: list[Explained]) -> str:
    """The same as surfaces, on one scale."""
    surfaces = planes(runs)
    columns = 3
    lines, top = -(-len(surfaces) // columns), _top(surfaces, single=False)
    with _sheet(8.2, 2.7 * lines) as figure:
        for i, (run, title, values) in enumerate(surfaces):
            axes: Any = figure.add_subplot(lines, columns, i + 1, projection="3d")
            grid = np.array(run.info.grid) * 255
            x, y = np.meshgrid(grid, grid, indexing="ij")
            axes.plot_surface(
                x, y, np.median(values, 0), cmap=LOSSES, vmin=0, vmax=top, linewidth=0.15, edgecolor=MUTED
            )
            axes.set(zlim=(0, top), xticks=[0, 4, 8], yticks=[0, 4, 8])
            axes.set_title(f"{run.name}, n = {len(values)}", fontsize=8.5)
            axes.set_xlabel("own (/255)", fontsize=7.5, labelpad=-6)
            axes.set_ylabel(f"{'random' if 'random' in title else 'second'} (/255)", fontsize=7.5, labelpad=-6)
            axes.tick_params(labelsize=7, pad=-2)
            axes.view_init(elev=24, azim=-130)
            axes.set_box_aspect(None, zoom=0.86)
        return svg(figure, "surface", "Median loss over two directions for each classifier, as surfaces on one scale.")


def single(runs: list[Explained]) -> str:
    """The landscapes of single images, on one colour scale: the median hides how much they differ."""
    surfaces = [p for p in planes(runs) if "random" in p[1]]
    top, columns = _top(surfaces, single=True), 8
    lines = [-(-min(16, len(values)) // columns) for _, _, values in surfaces]
    with _sheet(7.4, 0.95 * sum(lines) + 0.32 * len(surfaces)) as figure:
        parts = np.atleast_1d(figure.subfigures(len(surfaces), 1, height_ratios=lines))  # type: ignore[arg-type]
        for part, (run, _, values), count in zip(parts, surfaces, lines, strict=True):
            axes = part.subplots(count, columns, squeeze=False).ravel()
            for i, panel in enumerate(axes):
                panel.set(xticks=[], yticks=[])
                panel.grid(visible=False)
                if i >= min(16, len(values)):
                    panel.set_visible(False)
                    continue
                panel.imshow(values[i].T, origin="lower", cmap=LOSSES, vmin=0, vmax=top, interpolation="none")
            part.suptitle(f"{run.name}: own sign gradient → right, random signs ↑ up, 0 to 8/255", fontsize=8.5)
            _bar(part, (0, top), "nats", LOSSES, beside=list(axes))
        return svg(figure, "single", "The loss landscapes of single images, own sign gradient and random signs.")
