"""How bad it is to miss a finding or to invent one: a table that the user gives, and one number weighted by it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import medrobust.data.csv_rows as csv_rows
from medrobust.errors import InputError
from medrobust.stats import NOTHING, Estimate
from medrobust.threat import GoalKind

COLUMNS = ("finding", "missed", "invented")
Weights = dict[tuple[str, GoalKind], float]
"""(finding, HIDE or INVENT) -> weight."""


def read(table: str, findings: Sequence[str]) -> Weights:
    """The weights of a CSV table with the columns COLUMNS, a row a finding. InputError where it is not one."""
    path = Path(table).expanduser()
    if not path.is_file():
        raise InputError(f"--risk {table} is not a file; give a CSV table with the columns {', '.join(COLUMNS)}")
    cells = csv_rows.read(path, f"--risk {path.name}")
    missing = [name for name in COLUMNS if name not in cells.columns]
    if missing:
        raise InputError(f"--risk {path.name} has no column {missing[0]!r}; it needs {', '.join(COLUMNS)}")
    weights: Weights = {}
    for name, missed, invented in zip(*(cells.column(c) for c in COLUMNS), strict=True):
        if name not in findings:
            raise InputError(f"--risk {path.name}: there is no finding {name!r}; there are {', '.join(findings)}")
        for kind, text in ((GoalKind.HIDE, missed), (GoalKind.INVENT, invented)):
            weights[name, kind] = _weight(text, f"--risk {path.name}: the weight of {name}")
    unnamed = [name for name in findings if (name, GoalKind.HIDE) not in weights]
    if unnamed:
        raise InputError(
            f"--risk {path.name} has no row for {', '.join(unnamed)}; give every finding its weights, or 0"
        )
    if not sum(weights.values()):
        raise InputError(f"--risk {path.name}: every weight is 0")
    return weights


def _weight(text: str, what: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        weight = math.nan
    if not 0 <= weight < math.inf:
        raise InputError(f"{what} must be a number from 0 up, got {text!r}")
    return weight


def weighted(rates: Mapping[tuple[str, GoalKind], Estimate], weights: Weights) -> Estimate:
    """Weighted mean of the rates that were measured; NOTHING where none has a weight.

    Each end of its interval is the mean of those of the single findings: how findings of one image depend on each other
    is not known, and no dependence makes it wider.
    """
    measured = [(rates[k], w) for k, w in weights.items() if k in rates and w > 0 and not math.isnan(rates[k].value)]
    if not measured:
        return NOTHING
    total = sum(w for _, w in measured)
    value, low, high = (float(np.sum([w * e[i] for e, w in measured])) / total for i in range(3))
    return Estimate(value, low, high, sum(e.n for e, _ in measured))
