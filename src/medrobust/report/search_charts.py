"""Figures of a comparison of searches: who reaches what, who is told apart from whom, how fast they converge.

Each is drawn into axes: the page takes it as SVG, documents as PNG.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from medrobust import ranks as rank_tests
from medrobust.report import search_words as words
from medrobust.report.charts import INK, MUTED, PALETTE, canvas, line_style, svg
from medrobust.report.searched import MAIN, Searched
from medrobust.report.words import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"baseline": PALETTE[1], "random": MUTED, "search": PALETTE[0], "both": PALETTE[2]}
KINDS = {
    "baseline": "baseline",
    "random": "random search",
    "search": "nature-inspired search",
    "both": "search, then gradient descent",
}
SHOWN = 5
"""Searches that get a colour of their own in the curves; the others are pale."""


@dataclass(frozen=True)
class Line:
    """A method as one line of a figure: its median, interval and quartiles, shares. low, high: None below 6 seeds."""

    title: str
    kind: str
    value: float
    low: float | None
    high: float | None
    q1: float
    q3: float


@dataclass(frozen=True)
class MethodCurve:
    """The best objective so far of a method against x (evaluations or seconds), median of all seeds and folds."""

    title: str
    kind: str
    x: Sequence[float]
    median: Sequence[float]


def spread(axes: Axes, rows: Sequence[Line], label: str) -> None:
    """One line a method, best on top."""
    import matplotlib.ticker as ticks

    for y, row in enumerate(reversed(rows)):
        colour = COLOURS[row.kind]
        axes.plot([100 * row.q1, 100 * row.q3], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        if row.low is not None and row.high is not None:
            axes.plot([100 * row.low, 100 * row.high], [y, y], color=colour, linewidth=1.2)
        axes.plot([100 * row.value], [y], color=colour, marker="o", markersize=4.5)
    axes.set_yticks(range(len(rows)), [row.title for row in reversed(rows)])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.xaxis.set_major_locator(ticks.MaxNLocator(6))
    axes.set_xlabel(label)
    _kinds(axes, [row.kind for row in rows])


def critical_difference(axes: Axes, ranks: dict[str, float], kinds: dict[str, str], difference: float) -> None:
    """Mean ranks on one axis, 1 best; methods under one bar are not told apart (Demsar 2006)."""
    names = sorted(ranks, key=lambda name: ranks[name])
    k = len(names)
    left, right = names[: (k + 1) // 2], names[(k + 1) // 2 :][::-1]
    bars = rank_tests.cliques(np.array([ranks[n] for n in names]), difference)
    top = 0.55 + 0.42 * len(bars)
    axes.set_xlim(1 - 0.45 * (k - 1), k + 0.45 * (k - 1))
    axes.set_ylim(-top - 0.75 * len(left), 1.9)
    axes.axis("off")
    axes.plot([1, k], [0, 0], color=INK, linewidth=1)
    for tick in range(1, k + 1):
        labelled = k <= 12 or tick in (1, k) or tick % 5 == 0
        axes.plot([tick, tick], [0, 0.3 if labelled else 0.15], color=INK, linewidth=0.8)
        if labelled:
            axes.text(tick, 0.42, str(tick), ha="center", va="bottom", color=MUTED, fontsize=9)
    shown = min(difference, k - 1)
    axes.plot([1, 1 + shown], [1.5, 1.5], color=INK, linewidth=1.4, marker="|", markersize=6)
    axes.text(1 + shown + 0.012 * k, 1.5, f"critical difference {difference:.2f}", va="center", fontsize=9, color=INK)
    for i, (first, last) in enumerate(bars):
        axes.plot(
            [first - 0.03, last + 0.03],
            [-0.35 - 0.42 * i] * 2,
            color=INK,
            linewidth=3,
            alpha=0.75,
            solid_capstyle="round",
        )
    for names_, edge, align in ((left, 1 - 0.03 * k, "right"), (right, k + 0.03 * k, "left")):
        for i, name in enumerate(names_):
            y, colour = -top - 0.75 * i - 0.2, COLOURS[kinds[name]]
            axes.plot([ranks[name], ranks[name], edge], [0, y, y], color=colour, linewidth=0.8)
            axes.text(
                edge + (-0.01 if align == "right" else 0.01) * k,
                y,
                f"{name} {ranks[name]:.1f}",
                ha=align,
                va="center",
                fontsize=9,
                color=INK,
            )


def convergence(axes: Axes, curves: Sequence[MethodCurve], label: str) -> None:
    """The best objective so far. curves: in the order of their ends, best first."""
    import matplotlib.ticker as ticks

    in_colour = [c for c in curves if c.kind != "search"] + [c for c in curves if c.kind == "search"][:SHOWN]
    for curve in curves:
        if not any(curve is c for c in in_colour):
            axes.plot(curve.x, curve.median, color=MUTED, linewidth=0.7, alpha=0.5)
    for i, curve in enumerate(in_colour):
        style = line_style(i)
        axes.plot(curve.x, curve.median, color=style["color"], linestyle=style["linestyle"], label=curve.title)
    axes.set_xscale("log")
    values = [v for c in curves for v in c.median]
    if min(values) > 0 and max(values) / min(values) > 4:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(ticks.LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(ticks.FuncFormatter(lambda v, _: f"{v:g}"))
        axes.yaxis.set_minor_locator(ticks.NullLocator())
    axes.xaxis.set_major_formatter(ticks.FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_formatter(ticks.NullFormatter())
    axes.set_xlabel(label)
    axes.set_ylabel("objective on training images (less is better)")
    axes.legend(fontsize=8, handlelength=2.4, loc="best")


def _kinds(axes: Axes, kinds: list[str]) -> None:
    for kind in dict.fromkeys(kinds):
        axes.plot([], [], color=COLOURS[kind], marker="o", linewidth=4, label=KINDS[kind])
    axes.legend(fontsize=8, loc="best")


Draw = Callable[["Axes"], None]


def as_svg(draw: Draw, width: float, height: float, name: str, alt: str) -> str:
    """What ``draw`` puts into axes, as the page's inline SVG."""
    with canvas(width, height) as (figure, axes):
        draw(axes)
        return svg(figure, name, alt)


def cd_size(methods: int, bars: int = 0) -> tuple[float, float]:
    """Inches that a critical-difference diagram of so many methods needs."""
    return 7.4, 0.9 + 0.19 * ((methods + 1) // 2) + 0.1 * bars


AXES = {
    "at": ("evaluations (a gradient counts as three)", "Convergence against evaluations"),
    "clock": ("seconds of one processor a network", "The same against time"),
}
"""Of the curves: label and caption by the array that gives their x."""


def figures(result: Searched) -> list[tuple[str, str, str]]:
    """(name, SVG, caption) of every figure of one question."""
    return [_spread(result), *_ranks(result), *(figure for axis in AXES if (figure := _convergence(result, axis)))]


def curves(result: Searched, axis: str) -> list[MethodCurve]:
    """Convergence of each method that searches, best end first. axis: "at" (evaluations) or "clock" (seconds)."""
    out = []
    for name, method in result.methods.items():
        if f"{name}.median" in result.arrays:
            # time may begin at nothing, which a logarithmic axis does not have
            x = np.maximum(result.arrays[f"{name}.{axis}"], 1e-5).tolist()
            median = result.arrays[f"{name}.median"].tolist()
            out.append(MethodCurve(method.title, method.kind, x, median))
    return sorted(out, key=lambda c: c.median[-1])


def _spread(result: Searched) -> tuple[str, str, str]:
    rows = []
    for name in result.ordered:
        row = result.find(MAIN, name)
        assert row is not None
        method, value, quartiles = result.methods[name], row.value, [row.get("q1"), row.get("q3")]
        assert value is not None
        q1, q3 = (value if q is None else float(q) for q in quartiles)
        rows.append(Line(method.title, method.kind, value, row.low, row.high, q1, q3))
    each = "; ".join(f"{r.title} {percent(r.value)}" for r in rows)
    draw, name = partial(spread, rows=rows, label="balanced accuracy (%)"), f"spread-{result.question}"
    caption = "Median over seeds (dot), its 95 % interval (thin) and the quartiles (broad)."
    alt = f"Balanced accuracy of each method, best first: {each}."
    return name, as_svg(draw, 6.8, 1.1 + 0.21 * len(rows), name, alt), caption


def _ranks(result: Searched) -> list[tuple[str, str, str]]:
    ranked = {n: row for n in result.methods if (row := result.find("rank", n)) is not None}
    test = next((r for r in result.rows if r.metric == "friedman_p"), None)
    if test is None or test.value is None:
        return []
    values = {result.methods[n].title: row.value or 0.0 for n, row in ranked.items()}
    kinds = {result.methods[n].title: result.methods[n].kind for n in ranked}
    difference, name = float(test.get("critical_difference")), f"ranks-{result.question}"
    draw = partial(critical_difference, ranks=values, kinds=kinds, difference=difference)
    each = ", ".join(f"{n} {r:.1f}" for n, r in sorted(values.items(), key=lambda i: i[1]))
    caption = (
        f"Mean rank over {test.n} seeds, 1 is best; methods under one bar are not told apart (Nemenyi, α = 0.05). "
        f"Friedman's test: p {words.p_value(test.value)}. Seeds are draws of the same images: read it as an order, and "
        "let several data sets decide."
    )
    drawn = as_svg(draw, *cd_size(len(values)), name, f"Critical-difference diagram, mean ranks: {each}.")
    return [(name, drawn, caption)]


def _convergence(result: Searched, axis: str) -> tuple[str, str, str] | None:
    drawn, (label, caption) = curves(result, axis), AXES[axis]
    if not drawn:
        return None
    alt = f"{caption}: " + "; ".join(f"{c.title} ends at {c.median[-1]:.3f}" for c in drawn) + "."
    text = (
        f"{caption}: median over all seeds and folds; the best {SHOWN} searches and all that are more or less than a "
    )
    text += "search are named, the rest is pale."
    name = f"{axis}-{result.question}"
    return name, as_svg(partial(convergence, curves=drawn, label=label), 6.8, 4.4, name, alt), text
