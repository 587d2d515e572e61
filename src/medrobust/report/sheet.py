"""results.csv: every row of results.json, one a line; further columns stand before the metric."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from io import StringIO
from typing import Any

from medrobust.results import FIXED

BEFORE = FIXED[: FIXED.index("metric")]
AFTER = FIXED[len(BEFORE) :]


def text(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as CSV; an undefined number is an empty field."""
    further = dict.fromkeys(k for row in rows for k in row if k not in FIXED)
    out = StringIO()
    writer = csv.DictWriter(out, [*BEFORE, *further, *AFTER], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
