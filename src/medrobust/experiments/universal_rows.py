"""The rows of one universal perturbation: all that was judged of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.stats import Estimate
from medrobust.universal import UniversalOutcome


def believed(o: UniversalOutcome, nonzero: bool, why: str, legal: bool) -> tuple[str, str]:
    """Status and note of its rows: one that stayed zero shows no strength, unless there was nothing to do.

    why: it stayed zero. legal: it is no larger than it may be.
    """
    rate = o.fooling_rate if o.targeted_success is None else o.targeted_success
    if not nonzero and rate.value < 1:
        return INCONCLUSIVE, why
    return (OK, "") if legal else (INCONCLUSIVE, "the perturbation is larger than it may be")


def fooling_rows(rows: Rows, kind: Kind, o: UniversalOutcome, *, by_class: bool, **columns: Any) -> None:
    """How many decisions it changes, and what is then read correctly."""
    _add(rows, kind, {"fooling_rate": o.fooling_rate, "accuracy_after": o.accuracy_after}, **columns)
    saved = {"fooling_rate_saved": o.fooling_rate_saved, "accuracy_saved": o.accuracy_saved}
    _add(rows, kind, saved, bits=o.bits, **columns)
    after = {name: estimate for name, _, estimate in o.dominant}
    per_class = {"fooling_rate": o.fooling_rate_per_class, "recall_after": o.recall_after, "decided_after": after}
    _add_by_class(rows, kind, o, per_class if by_class else {}, **columns)


def target_rows(rows: Rows, kind: Kind, o: UniversalOutcome, *, by_class: bool, **columns: Any) -> None:
    """How many images are decided as the target."""
    assert o.target is not None
    columns["target"] = o.target_name
    _add(
        rows, kind, {"targeted_success": o.targeted_success, "targeted_success_new": o.targeted_success_new}, **columns
    )
    _add(rows, kind, {"targeted_success_saved": o.targeted_success_saved}, bits=o.bits, **columns)
    if kind == Kind.UNIVERSAL:  # the same under any perturbation
        _add(rows, kind, {"targeted_base": o.targeted_base}, **columns)
    per_class = {"targeted_success": o.targeted_success_per_class} if by_class else {}
    _add_by_class(rows, kind, o, per_class, **columns)


def rows_before(rows: Rows, kind: Kind, o: UniversalOutcome, *, by_class: bool, **columns: Any) -> None:
    """What was so without it: the same for every perturbation."""
    _add(rows, kind, {"fooling_cap": o.cap, "accuracy_before": o.accuracy_before}, **columns)
    before = {name: estimate for name, estimate, _ in o.dominant}
    per_class = {"recall_before": o.recall_before, "decided_before": before} if by_class else {}
    _add_by_class(rows, kind, o, per_class, **columns)


def _add(rows: Rows, kind: Kind, estimates: Mapping[str, Estimate | None], **columns: Any) -> None:
    for metric, estimate in estimates.items():
        if estimate is not None:
            rows.add(kind, metric, estimate, **columns)


def _add_by_class(
    rows: Rows, kind: Kind, o: UniversalOutcome, metrics: Mapping[str, Mapping[str, Estimate]], **columns: Any
) -> None:
    for metric, estimates in metrics.items():
        for name in o.classes:
            if name in estimates:
                rows.add(kind, metric, estimates[name], class_name=name, **columns)
