"""The rows of a comparison: every run's numbers on the common images, and the paired differences between them.

Rows of a run have a column ``run``. Those of two have ``run`` and ``against``, and ``before`` or ``under`` attack as
their column ``when``: a difference is the share of the run less that of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

import numpy as np

from medrobust import stats
from medrobust.paired.common import Paired, PairedAudit
from medrobust.report.run import WORST
from medrobust.results import INCONCLUSIVE, OK, Kind, Row, Rows
from medrobust.stats import Estimate, members

MANY = 20
"""With more classes than this, numbers for each class would bury the others."""
BEFORE, UNDER = "before", "under"
COPIED = ((Kind.UNIVERSAL, "fooling_rate"), (Kind.DETECTOR, "auroc"))
"""Kinds and metrics of rows that are shown side by side as each run has them: they are not known image by image."""


def rows_of(p: Paired) -> list[Row]:
    """All of them: run by run, then pair by pair."""
    c = p.sides[0].audit.run.conditions
    rows = Rows("compare", c.data, "", c.norm)
    for side in p.sides:
        _run_rows(rows, p, side)
    pairs = list(combinations(p.sides, 2))
    for first, second in pairs:
        _pair_rows(rows, p, first, second)
    adjusted = stats.holm([_p_value(p, *pair) for pair in pairs])
    for (first, second), value in zip(pairs, adjusted, strict=True):
        doubt = p.doubt(first, p.reference) or p.doubt(second, p.reference)
        _add(rows, "p_adjusted", Estimate(value, np.nan, np.nan, len(p.attacked)), first, second, UNDER, p, doubt)
    return rows.rows


def _run_rows(rows: Rows, p: Paired, side: PairedAudit) -> None:
    clean, owners = side.audit.clean_doubt, p.attacked_patients
    _own(rows, side, Kind.CLEAN, "accuracy", stats.proportion(side.right, p.patients), clean)
    for metric, name, mask, hits in _by_class(p, side):
        share = stats.proportion(hits[mask], members(p.patients, mask))
        _own(rows, side, Kind.CLEAN, metric, share, clean, class_name=name)
    at_zero = side.held(0.0)
    for eps in (0.0, *p.sizes):
        share, doubt = stats.proportion(side.held(eps), owners), p.doubt(side, eps) if eps else clean
        _own(rows, side, Kind.WORST, "accuracy", share, doubt, eps)
        for name, mask in _classes(p) if eps == p.reference else ():
            share = stats.proportion(side.held(eps)[mask], members(owners, mask))
            _own(rows, side, Kind.WORST, "sensitivity", share, doubt, eps, class_name=name)
    doubt = next((why for eps in p.sizes if (why := p.doubt(side, eps))), "")
    middle = stats.median(side.smallest[at_zero], members(owners, at_zero))
    _own(rows, side, Kind.WORST, "min_eps_median", middle, doubt)
    halved = next((eps for eps in p.sizes if side.held(eps).sum() <= at_zero.sum() / 2), np.nan)
    _own(rows, side, Kind.WORST, "halved_at", Estimate(halved, np.nan, np.nan, at_zero.size), doubt)
    own = side.audit.run
    noise = own.at("noise", "accuracy", p.reference)
    copied = [r for kind, metric in COPIED for r in own.rows if r.kind == kind and r.metric == metric]
    for row in (*([] if noise is None else [noise]), *copied):
        rows.rows.append(replace(row, study="compare", more={**row.more, "run": side.name}))


def _own(
    rows: Rows,
    side: PairedAudit,
    kind: Kind,
    metric: str,
    estimate: Estimate,
    doubt: str,
    eps: float = 0.0,
    **more: str,
) -> None:
    attack, status = WORST if kind is Kind.WORST else "none", INCONCLUSIVE if doubt else OK
    model = side.audit.run.conditions.model
    rows.add(
        kind, metric, estimate, attack=attack, eps=eps, status=status, note=doubt, model=model, run=side.name, **more
    )


def _classes(p: Paired) -> Iterator[tuple[str, np.ndarray]]:
    """Class, and which of the attacked images are of it, where an image has one class."""
    labels, classes = p.labels[p.attacked], p.sides[0].audit.classes
    for k, name in enumerate(classes if labels.ndim == 1 and len(classes) <= MANY else ()):
        if (labels == k).any():
            yield name, labels == k


def _by_class(p: Paired, side: PairedAudit) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """metric, class or finding, which common test images it is about, and which of all were read correctly in it."""
    classes = side.audit.classes
    for k, name in enumerate(classes if len(classes) <= MANY else ()):
        if p.labels.ndim == 2:
            labels, hits = p.labels[:, k], side.prediction[:, k] == p.labels[:, k]
            sides = (("sensitivity", labels == 1, hits), ("specificity", labels == 0, hits))
        else:
            of, said = p.labels == k, side.prediction == k
            sides = (("sensitivity", of, said), ("specificity", ~of, ~said))
        yield from ((metric, name, mask, hits) for metric, mask, hits in sides if mask.any())


def _p_value(p: Paired, first: PairedAudit, second: PairedAudit) -> float:
    return stats.paired_p_value(first.held(p.reference), second.held(p.reference), p.attacked_patients)


def _pair_rows(rows: Rows, p: Paired, first: PairedAudit, second: PairedAudit) -> None:
    doubt = first.audit.clean_doubt or second.audit.clean_doubt
    _add(
        rows,
        "accuracy",
        stats.paired_difference(first.right, second.right, p.patients),
        first,
        second,
        BEFORE,
        p,
        doubt,
    )
    _sides(rows, p, first, second, first.right, second.right, p.patients, BEFORE, doubt)
    for one, other in zip(_by_class(p, first), _by_class(p, second), strict=True):
        metric, name, mask, hits = one
        change = stats.paired_difference(hits[mask], other[3][mask], members(p.patients, mask))
        _add(rows, metric, change, first, second, BEFORE, p, doubt, class_name=name)
    owners = p.attacked_patients
    for eps in p.sizes:
        doubt = p.doubt(first, eps) or p.doubt(second, eps)
        held = first.held(eps), second.held(eps)
        _add(rows, "accuracy", stats.paired_difference(*held, owners), first, second, UNDER, p, doubt, eps)
        if eps == p.reference:
            _sides(rows, p, first, second, *held, owners, UNDER, doubt, eps)
            for name, mask in _classes(p):
                change = stats.paired_difference(held[0][mask], held[1][mask], members(owners, mask))
                _add(rows, "sensitivity", change, first, second, UNDER, p, doubt, eps, class_name=name)


def _sides(
    rows: Rows,
    p: Paired,
    first: PairedAudit,
    second: PairedAudit,
    one: np.ndarray,
    other: np.ndarray,
    owners: np.ndarray | None,
    when: str,
    doubt: str,
    eps: float = 0.0,
) -> None:
    """How many images the second reads correctly and the first does not, and the other way round; the test on them."""
    _add(rows, "gained", stats.proportion(other & ~one, owners), first, second, when, p, doubt, eps)
    _add(rows, "lost", stats.proportion(one & ~other, owners), first, second, when, p, doubt, eps)
    p_value = Estimate(stats.paired_p_value(one, other, owners), np.nan, np.nan, one.size)
    _add(rows, "p_value", p_value, first, second, when, p, doubt, eps)


def _add(
    rows: Rows,
    metric: str,
    estimate: Estimate,
    first: PairedAudit,
    second: PairedAudit,
    when: str,
    p: Paired,
    doubt: str,
    eps: float | None = None,
    **more: str,
) -> None:
    rows.add(
        Kind.COMPARISON,
        metric,
        estimate,
        attack=WORST if when == UNDER else "none",
        eps=p.reference if eps is None and when == UNDER else eps or 0.0,
        status=INCONCLUSIVE if doubt else OK,
        note=doubt,
        model=second.audit.run.conditions.model,
        run=second.name,
        against=first.name,
        when=when,
        **more,
    )
