"""The rows of attacks on several findings. A row's ``goal`` says what was to happen, ``class_name`` to which finding.

``alone``: and nothing else was to change.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medrobust import stats
from medrobust.experiments.checks import TOLERATED
from medrobust.experiments.finding_cells import Reached, changed, occurs
from medrobust.images import UNKNOWN
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.threat import GoalKind

NAME = "findings"
"""Stands as the attack in these rows."""


def goal_rows(
    rows: Rows,
    eps: tuple[float, ...],
    result: Reached,
    before: np.ndarray,
    labels: np.ndarray,
    sets: np.ndarray | None,
    patients: np.ndarray | None,
    why: str,
    **columns: Any,
) -> None:
    """One goal: success at each eps, the median of the smallest eps, and what its smallest examples look like.

    before, labels: (n, k), the clean decisions and the labels. sets: those that occur, None where they are not known.
    why: what an attack lacked where it proves nothing.
    """
    n, lost = len(before), int(result.no_gradient.sum())
    note = f"for {lost} of {n} images {why}" if lost else ""
    status = INCONCLUSIVE if lost >= max(1, TOLERATED * n) else OK

    def add(metric: str, estimate: stats.Estimate, at: float, note: str = note, status: str = status) -> None:
        rows.add(Kind.FINDING, metric, estimate, attack=NAME, eps=at, status=status, note=note, **columns)

    top = max(eps)
    for at in eps:
        add("success", stats.proportion(result.min_eps <= np.float32(at), patients), at)
    middle = stats.median(result.min_eps, patients)
    add("min_eps_median", middle, top, note or ("" if math.isfinite(middle.value) else "above the grid"))
    found = np.isfinite(result.min_eps)
    owners = None if patients is None else patients[found]
    turned = changed(before, result.after, labels).sum(1)
    add("findings_changed", stats.mean(turned[found].astype(float), owners), top, "in the smallest examples")
    if sets is not None:
        for metric, decisions in (("occurs_before", before), ("occurs_after", result.after)):
            add(metric, stats.proportion(occurs(decisions, labels, sets)[found], owners), top, "", OK)


def noise_goal_rows(
    rows: Rows,
    eps: tuple[float, ...],
    before: np.ndarray,
    decisions: np.ndarray,
    labels: np.ndarray,
    findings: tuple[str, ...],
    patients: np.ndarray | None,
) -> None:
    """The same goals under random noise: the control. before, labels: (n, k); decisions: (n, len(eps), k)."""

    def add(hits: np.ndarray, of: np.ndarray, at: float, **columns: Any) -> None:
        share = stats.proportion(hits[of], None if patients is None else patients[of])
        rows.add(Kind.CONTROL, "success", share, attack="noise", eps=at, **columns)

    known = labels != UNKNOWN
    for i, at in enumerate(eps):
        turned = changed(before, decisions[:, i], labels)
        add(np.asarray(turned.any(1)), np.asarray(known.any(1)), at, goal=GoalKind.ANY.value)
        for k, name in enumerate(findings):
            for kind, value in ((GoalKind.HIDE, 1), (GoalKind.INVENT, 0)):
                of = (labels[:, k] == value) & (before[:, k] == value)
                add(turned[:, k], of, at, goal=kind.value, class_name=name)
