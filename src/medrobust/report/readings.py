"""What a chart says where the pointer is: an invisible rectangle for each place along the x axis, with its values.

Without a script a browser shows them as a tooltip; the script of the page also writes them below the chart, for the
keyboard and for fingers.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from medrobust.report.words import bounds, count, percent
from medrobust.results import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 72
"""In an inch: the unit of an SVG of matplotlib."""


@dataclass(frozen=True)
class PointerReading:
    """One value. x: in the units of the axis; place: x in words; text: the value with its series."""

    x: float
    place: str
    text: str


def of_rows(label: str, places: Sequence[tuple[float, str]], rows: Sequence[Row]) -> list[PointerReading]:
    """Of a series of shares. places: x of each row, and x in words."""
    out = []
    for (x, place), row in zip(places, rows, strict=True):
        if row.value is not None:
            text = f"{label}: {percent(row.value)} {bounds(row.low, row.high)}".rstrip()
            text += f", n = {count(row.n)}" if row.n else ""
            out.append(PointerReading(x, place, text + ("" if row.ok else ", inconclusive")))
    return out


def overlay(figure: Figure, readings: Sequence[PointerReading]) -> str:
    """SVG of the rectangles over the first axes, once the figure has been drawn; each ends halfway to the next."""
    axes = figure.axes[0]
    scale = POINTS / figure.dpi
    box, height = axes.get_window_extent(), figure.get_size_inches()[1] * POINTS
    places: dict[str, tuple[float, list[str]]] = {}
    for r in readings:
        across = float(axes.transData.transform((r.x, 0.0))[0]) * scale
        places.setdefault(r.place, (across, []))[1].append(r.text)
    ordered = sorted(places.items(), key=lambda item: item[1][0])
    xs = [across for _, (across, _) in ordered]
    left, right = float(box.x0) * scale, float(box.x1) * scale
    edges = [left, *((a + b) / 2 for a, b in itertools.pairwise(xs)), max(right, *xs, left) if xs else right]
    top, tall = height - float(box.y1) * scale, float(box.height) * scale
    parts = [
        f'<rect x="{a:.1f}" y="{top:.1f}" width="{max(b - a, 0):.1f}" height="{tall:.1f}">'
        f"<title>{escape(chr(10).join([place, *texts]))}</title></rect>"
        for a, b, (place, (_, texts)) in zip(edges, edges[1:], ordered, strict=False)
    ]
    # stated here and not in page.css, which WeasyPrint does not apply inside a drawing: there they would be black
    return f'<g class="readings" fill="none" pointer-events="all">{"".join(parts)}</g>' if parts else ""
