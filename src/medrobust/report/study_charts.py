"""Curves of a study: a measured share against eps or zeta, with intervals, one picture a panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from medrobust.grid import matches
from medrobust.report.charts import _legend, _percent_axis, canvas, line_style, svg
from medrobust.report.study_tables import unit

MOST = 8
"""Lines in one picture; more could not be told apart."""

AXES = {
    "eps": ("ε (/255)", 255.0),
    "at": ("distance from the image (/255)", 255.0),
    "zeta": ("ζ, share of the mean norm of an image (%)", 100.0),
}

Row = Mapping[str, Any]


def charts(results: Mapping[str, Any], part: Mapping[str, Any]) -> list[dict[str, str]]:
    """Title and SVG of every chart of one part that has two points or more."""
    measured = [r for r in results["rows"] if r["part"] == part["name"] and r["value"] is not None]
    charts = []
    for i, view in enumerate(v for v in part["show"] if v["kind"] == "chart"):
        chosen = [r for r in measured if matches(r, view["where"]) and r.get(view["x"]) is not None]
        for j, panel in enumerate(dict.fromkeys(_key(r, view["panels"]) for r in chosen)):
            rows = [r for r in chosen if _key(r, view["panels"]) == panel]
            if len({r[view["x"]] for r in rows}) > 1:
                name = ", ".join(dict.fromkeys(map(str, panel)))  # a model may be called as its data
                title = f"{view['title']}: {name}" if name else view["title"]
                charts.append({"title": title, "svg": _draw(f"{part['name']}{i}-{j}", title, view, rows)})
    return charts


def _draw(name: str, title: str, view: Mapping[str, Any], rows: list[Row]) -> str:
    label, scale = AXES.get(view["x"], (view["x"], 1.0))
    lines = list(dict.fromkeys(_key(r, view["lines"]) for r in rows))[:MOST]
    with canvas(6.4, 4.2) as (figure, axes):
        for k, line in enumerate(lines):
            points = sorted((r for r in rows if _key(r, view["lines"]) == line), key=lambda r: r[view["x"]])
            x = [r[view["x"]] * scale for r in points]
            y, low, high = (
                np.array([np.nan if r[c] is None else r[c] for r in points], float) for c in ("value", "low", "high")
            )
            style = line_style(k)
            axes.fill_between(x, low, high, color=str(style["color"]), alpha=0.1, linewidth=0)
            axes.plot(x, y, label=", ".join(map(str, line)), clip_on=False, **style)  # type: ignore[arg-type]
        if view["x"] in ("eps", "at", "weights"):
            axes.set_xscale("log")
        if view["x"] in ("eps", "at"):
            ticks = sorted({r[view["x"]] * scale for r in rows})
            ticks_drawn = [
                t for t in (0.1, 0.2, 0.5, 1, 2, 4, 8, 16, 32) if ticks[0] <= t * 1.01 and t <= ticks[-1] * 1.01
            ]
            axes.set_xticks(ticks_drawn, [f"{t:g}" for t in ticks_drawn])
            axes.set_xticks([], minor=True)
        axes.set_xlabel(label)
        if unit(rows[0]).strip() == "%":
            _percent_axis(axes, view["label"])
        else:
            axes.set_ylabel(view["label"])
        _legend(figure, axes)
        return svg(figure, name, f"{title}: {view['label']} against {label}.")


def _key(row: Row, columns: list[str]) -> tuple[Any, ...]:
    return tuple(row.get(c) for c in columns)
