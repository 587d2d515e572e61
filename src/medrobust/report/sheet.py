"""results.csv: every row of results.json, one a line, further columns before the metric; images.csv: every image."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from io import StringIO

import numpy as np

from medrobust.report.explained import explained
from medrobust.report.run import Run
from medrobust.results import FIXED, group

BEFORE = FIXED[: FIXED.index("metric")]
AFTER = FIXED[len(BEFORE) :]


def images(run: Run) -> str:
    """images.csv: every number that was measured of an image, one image a line."""
    classifiers = explained(run)
    numbers = [group(e.arrays, "image") for e in classifiers]
    names = list(dict.fromkeys(name for of_images in numbers for name in of_images))
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["name", "id", *names])
    for e, of_images in zip(classifiers, numbers, strict=True):
        columns = [of_images.get(name) for name in names]
        for i, image in enumerate(e.info.ids):
            values = ("" if c is None or not np.isfinite(c[i]) else f"{c[i]:.9g}" for c in columns)
            writer.writerow([e.name, image, *values])
    return out.getvalue()


def lines(rows: Sequence[Mapping[str, object]]) -> str:
    """Any rows as CSV, columns as they come."""
    out = StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(k for row in rows for k in row)), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def text(rows: Sequence[Mapping[str, object]]) -> str:
    """The rows as CSV; an undefined number is an empty field."""
    further = dict.fromkeys(k for row in rows for k in row if k not in FIXED)
    out = StringIO()
    writer = csv.DictWriter(out, [*BEFORE, *further, *AFTER], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
