"""The smallest change that fools each image."""

from __future__ import annotations

import numpy as np

from medrobust.report import charts, tables
from medrobust.report.findings import Findings
from medrobust.report.section import Content
from medrobust.report.words import percent

ANCHOR, TITLE, ORDER, NEEDS = "smallest", "How small a change is enough", 30, ("robustness",)
FOLDED = True


def build(f: Findings) -> Content:
    table, figures = tables.smallest(f), {}
    drawn = [(a, v) for a in f.run.measured if (v := f.min_eps(a)) is not None and v.size]
    if drawn:
        alt = "Share of images fooled by a change of at most ε, one line an attack. "
        alt += " ".join(f"{f.run.title(a)}: {percent(float(np.isfinite(v).mean()))} on the grid." for a, v in drawn)
        figures["min_eps"] = charts.min_eps(f, alt)
    return Content({"smallest": table}, [table] if table else [], figures)
