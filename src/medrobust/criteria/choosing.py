"""Which row of results a criterion speaks of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from medrobust.criteria.language import Criterion, bare, column_text, number
from medrobust.errors import InputError
from medrobust.results import FIXED, Kind, Row

FIRST = (Kind.CLEAN, Kind.WORST, Kind.ATTACK)
"""Kinds that a criterion without a kind is about before all others: the first without a size only."""
MOST = 12
"""Values that a message lists."""


class NoRowError(InputError):
    """No row answers a criterion. What is stated is a reason, without the criterion."""


class SeveralRowsError(NoRowError):
    """More than one row answers a criterion: it can be written so that one does."""


def chosen(criterion: Criterion, rows: Sequence[Row], eps: float | None, size: Callable[[float], str]) -> Row:
    """The one row that the criterion speaks of. eps: its size as rows hold it. size: eps in words, for messages.

    A criterion without a kind is about untouched images, or, with a size, about the worst case, then about single
    attacks, and where none of these have the metric and its columns about any other kind, controls last. Of the rows
    that match, those with the fewest columns that the criterion does not name: all classes together before one class.
    NoRowError where none answers, SeveralRowsError where several do.
    """
    for tier in _tiers(criterion):
        matching = [row for row in rows if row.kind in tier and _matches(criterion, row)]
        if not matching:
            continue
        if eps is not None:
            at = [row for row in matching if row.has(eps=eps)]
            if not at:
                assert criterion.size is not None
                sizes = sorted({row.eps for row in matching} - {0.0})
                if not sizes:
                    raise NoRowError(f"this number has no size; leave out @{criterion.size.text}")
                raise NoRowError(f"there is no number at {criterion.size.text}; there are: {_listed(map(size, sizes))}")
            matching = at
        if len(kinds := dict.fromkeys(row.kind for row in matching)) > 1:
            raise SeveralRowsError(
                f"it may be about several kinds; also give {_listed((f'kind={k}' for k in kinds), ' or ')}"
            )
        further = [_further(criterion, row) for row in matching]
        fewest = min(map(len, further))
        best = [row for row, names in zip(matching, further, strict=True) if len(names) == fewest]
        if len(best) == 1:
            return best[0]
        raise SeveralRowsError(f"{len(best)} numbers answer it; also give {_distinctions(best, size)}")
    raise NoRowError(_absent(criterion, rows))


def _tiers(criterion: Criterion) -> list[list[Kind]]:
    if "kind" in criterion.by_column:
        return [[kind for kind in Kind if kind.value == criterion.by_column["kind"]]]
    first: Sequence[Kind] = FIRST if criterion.size is None else FIRST[1:]
    others: list[Kind] = [kind for kind in Kind if kind not in (*FIRST, Kind.CONTROL)]
    return [*([Kind(kind)] for kind in first), others, [Kind.CONTROL]]


def metric_of(criterion: Criterion) -> str:
    """What the metric is called in rows; those of universal perturbations have names of their own."""
    if criterion.by_column.get("kind") != Kind.UNIVERSAL:
        return criterion.metric
    success = "targeted_success" if "target" in criterion.by_column else "fooling_rate"
    called = {"success": success, "accuracy": "accuracy_after", "sensitivity": "recall_after"}
    return called.get(criterion.metric, criterion.metric)


def _matches(criterion: Criterion, row: Row) -> bool:
    return bare(row.metric) == metric_of(criterion) and all(
        same(row.get(name), text) for name, text in criterion.columns
    )


def same(value: object, text: str) -> bool:
    """Whether a column holds what a criterion says of it; "none" is a column that the row does not have."""
    if value is None or isinstance(value, bool):
        return text == ("yes" if value else "no") or (value is None and text == "none")
    if isinstance(value, (int, float)):
        try:
            return math.isclose(value, number(text)[0], rel_tol=1e-6, abs_tol=1e-9)
        except InputError:
            return False
    return str(value) == text


def _further(criterion: Criterion, row: Row) -> list[str]:
    return [name for name in row.more if name not in criterion.by_column]


def _distinctions(rows: Sequence[Row], size: Callable[[float], str]) -> str:
    """ "class=normal or class=pneumonia": the columns that differ among the rows."""
    parts = []
    if len({row.eps for row in rows}) > 1:
        parts.append(f"one size of {_listed(f'@{size(e)}' for e in sorted({row.eps for row in rows}))}")
    names = ["kind", "attack", *dict.fromkeys(name for row in rows for name in row.more)]
    for name in names:
        values = list(dict.fromkeys(row.get(name) for row in rows))
        if len(values) > 1:
            parts.append(_listed((f"{column_text(name)}={_text(value)}" for value in values), " or "))
    return "; ".join(parts)


def _absent(criterion: Criterion, rows: Sequence[Row]) -> str:
    """Why no row answers: another metric, another kind, or other columns."""
    kinds = [kind for tier in _tiers(criterion) for kind in tier]
    if not kinds:
        there = dict.fromkeys(row.kind for row in rows)
        return f"there is no kind {criterion.by_column['kind']!r}; there are: {_listed(there)}"
    of_kind = [row for row in rows if row.kind in kinds]
    named = [row for row in of_kind if bare(row.metric) == metric_of(criterion)]
    if not named:
        where = f" of kind {kinds[0].value}" if "kind" in criterion.by_column else ""
        there = dict.fromkeys(row.metric for row in of_kind)
        return f"no number{where} is called {criterion.metric}; there are: {_listed(there) or 'none'}"
    for name, text in criterion.columns:
        column = column_text(name)
        values = list(dict.fromkeys(row.get(name) for row in named))
        if name not in FIXED and values == [None]:
            names = dict.fromkeys(c for row in named for c in row.more)
            return f"{criterion.metric} has no column {column}; it has: {_listed(['kind', 'attack', *names])}"
        if not any(same(value, text) for value in values):
            there = dict.fromkeys(_text(value) for value in values if value is not None)
            return f"{criterion.metric} has no {column}={text}; it has: {_listed(there)}"
    return f"no {criterion.metric} has all of these columns at once"


def _text(value: object) -> str:
    return "none" if value is None else "yes" if value is True else f"{value}"


def _listed(names: Iterable[object], joint: str = ", ") -> str:
    every = [str(name) for name in names]
    more = [] if len(every) <= MOST else [f"and {len(every) - MOST} more"]
    return joint.join([*every[:MOST], *more])
