"""results.csv: every row of results.json, one a line, further columns before the metric; images.csv: every image."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

import numpy as np

from medrobust.report.explained import explained
from medrobust.report.run import Run
from medrobust.results import FIXED

BEFORE = FIXED[: FIXED.index("metric")]
AFTER = FIXED[len(BEFORE) :]


def images(run: Run) -> str:
    """images.csv: every number that was measured of an image, one image a line."""
    classifiers = explained(run)
    names = list(dict.fromkeys(n for e in classifiers for n in e.arrays if n.startswith("image.")))
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "id", *(n.removeprefix("image.") for n in names)])
    for e in classifiers:
        columns = [e.arrays.get(n) for n in names]
        for i, image in enumerate(e.info.ids):
            values = ("" if c is None or not np.isfinite(c[i]) else f"{c[i]:.9g}" for c in columns)
            writer.writerow([e.name, image, *values])
    return out.getvalue()


def text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV; an undefined number is an empty field."""
    further = dict.fromkeys(k for row in rows for k in row if k not in FIXED)
    out = StringIO()
    writer = csv.DictWriter(out, [*BEFORE, *further, *AFTER], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
