"""results.csv: every row of results.json, one a line, columns in the order of the format."""

from __future__ import annotations

import csv
from io import StringIO
from typing import Any

from medrobust.report.run import COLUMNS


def text(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV; an undefined number is an empty field, a column unknown to the format stands last."""
    extra = dict.fromkeys(k for row in rows for k in row if k not in COLUMNS)
    out = StringIO()
    writer = csv.DictWriter(out, [*COLUMNS, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
