"""Every number with its n and its 95 % interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from medrobust.errors import InputError

Z95 = 1.959963984540054


class Estimate(NamedTuple):
    """A value, its 95 % interval, and the number of images behind it. NaN throughout where n is 0."""

    value: float
    low: float
    high: float
    n: int


NOTHING = Estimate(float("nan"), float("nan"), float("nan"), 0)


def proportion(hits: Sequence[bool] | np.ndarray, groups: Sequence[object] | np.ndarray | None = None) -> Estimate:
    """Share of true entries with Wilson's score interval (Wilson 1927).

    groups: one entry an image (a patient). Images of one patient are not independent; the interval is then
        computed at the effective sample size n / design effect (Rao & Scott 1992, Biometrics 48:577). The
        design effect is bounded below by 1, so clustering never narrows an interval.
    """
    hits = np.asarray(hits, dtype=float)
    n = hits.size
    if n == 0:
        return NOTHING
    p = float(hits.mean())
    effective = n / design_effect(hits, groups)
    half_width = Z95**2 / (2 * effective)
    centre = (p + half_width) / (1 + Z95**2 / effective)
    spread = Z95 / (1 + Z95**2 / effective) * np.sqrt(p * (1 - p) / effective + Z95**2 / (4 * effective**2))
    # at 0 and 1 an end equals p, up to rounding
    return Estimate(p, float(max(0.0, min(p, centre - spread))), float(min(1.0, max(p, centre + spread))), n)


def design_effect(hits: np.ndarray, groups: Sequence[object] | np.ndarray | None) -> float:
    """Variance of the mean when images come in groups, over its variance when they were independent; >= 1."""
    hits = np.asarray(hits, dtype=float)
    if groups is None or hits.size < 2:
        return 1.0
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(index.max()) + 1
    if count == hits.size or count < 2:
        return 1.0
    p = hits.mean()
    independent = p * (1 - p) / hits.size
    if independent == 0:
        return 1.0
    residuals = np.bincount(index, weights=hits - p, minlength=count)
    clustered = count / (count - 1) * float((residuals**2).sum()) / hits.size**2
    return max(1.0, clustered / independent)


def median(values: Sequence[float] | np.ndarray) -> Estimate:
    """Median with its distribution-free 95 % interval from order statistics; infinities are allowed."""
    values = np.sort(np.asarray(values, dtype=float))
    n = values.size
    if n == 0:
        return NOTHING
    low, high = scipy_stats.binom.interval(0.95, n, 0.5)
    middle = (values[(n - 1) // 2], values[n // 2])
    # the mean of inf and a number is inf, of two infs is nan: name it inf
    value = middle[0] if middle[0] == middle[1] else float(np.mean(middle))
    return Estimate(float(value), float(values[max(0, int(low) - 1)]), float(values[min(n - 1, int(high))]), n)


def mean(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean with its 95 % Student interval."""
    values = np.asarray(values, dtype=float)
    n = values.size
    if n == 0:
        return NOTHING
    centre = float(values.mean())
    if n == 1:
        return Estimate(centre, float("nan"), float("nan"), 1)
    half = float(scipy_stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n))
    return Estimate(centre, centre - half, centre + half, n)


def auroc(scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray) -> Estimate:
    """Area under the ROC curve, ties counted half, with DeLong's interval on the logit scale.

    DeLong et al. 1988 (Biometrics 44:837) by the midrank way of Sun & Xu 2014 (IEEE SPL 21:1389). At an
    area of exactly 0 or 1 that variance is zero: the interval then holds the areas from which the one seen lies
    within 1.96 of Hanley & McNeil's standard errors (the score interval of Newcombe 2006, Stat Med 25:559).
    """
    scores, positive = np.asarray(scores, dtype=float), np.asarray(positive, dtype=bool)
    if scores.shape != positive.shape:
        raise InputError(f"scores and labels differ in length: {scores.size} and {positive.size}")
    if np.isnan(scores).any():
        raise InputError(f"{int(np.isnan(scores).sum())} of {scores.size} scores are NaN")
    m, k, n = int(positive.sum()), int((~positive).sum()), scores.size
    if m == 0 or k == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), n)
    ranks = scipy_stats.rankdata(scores)
    above = (ranks[positive] - scipy_stats.rankdata(scores[positive])) / k
    below = 1 - (ranks[~positive] - scipy_stats.rankdata(scores[~positive])) / m
    area = float(above.mean())
    variance = (above.var(ddof=1) / m if m > 1 else 0.0) + (below.var(ddof=1) / k if k > 1 else 0.0)
    if variance == 0:
        return Estimate(area, *_score_interval(area, m, k), n)
    logit, spread = np.log(area / (1 - area)), Z95 * np.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + np.exp(-v)) for v in (logit - spread, logit + spread))
    return Estimate(area, float(low), float(high), n)


def _score_interval(area: float, m: int, k: int) -> tuple[float, float]:
    """Ends of the areas a with |area - a| within Z95 standard errors at a, for m positive and k negative images."""
    from scipy.optimize import brentq

    def excess(a: float) -> float:
        q1, q2 = a / (2 - a), 2 * a**2 / (1 + a)
        variance = (a * (1 - a) + (m - 1) * (q1 - a**2) + (k - 1) * (q2 - a**2)) / (m * k)
        return float((area - a) ** 2 - Z95**2 * variance)

    near = 1e-9  # at the area itself the excess is 0 where the area is 0 or 1
    low = 0.0 if area <= near else float(brentq(excess, 0.0, area - near))
    high = 1.0 if area >= 1 - near else float(brentq(excess, area + near, 1.0))
    return low, high


RESAMPLES = 2000


def spearman(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    groups: Sequence[object] | np.ndarray | None = None,
    *,
    given: Sequence[float] | np.ndarray | None = None,
) -> Estimate:
    """Spearman's rank correlation with a percentile bootstrap interval; infinities are ranks like others.

    groups: one entry a row (a patient, an architecture). Whole groups are drawn, so that rows that belong together
        never narrow the interval. given: a third quantity whose ranks are taken out of both (partial correlation).
        Rows with a NaN are left out. NaN where fewer than 4 rows or groups are left, or one side is constant.
    Where more than one resample in 40 has no correlation, because one side does not vary in it, nothing is known: the
    interval is -1 to 1. The draws are the same in every call: 2000 of them, keyed by nothing but their number
    (Efron & Tibshirani 1993).
    """
    columns = [np.asarray(v, dtype=float) for v in (x, y, *(() if given is None else (given,)))]
    if len({c.size for c in columns}) > 1:
        raise InputError(f"columns differ in length: {', '.join(str(c.size) for c in columns)}")
    kept = ~np.any([np.isnan(c) for c in columns], axis=0)
    table = np.stack([c[kept] for c in columns])
    n = table.shape[1]
    names = np.arange(n) if groups is None else np.asarray(groups, dtype=str)[kept]
    members = [np.flatnonzero(names == g) for g in dict.fromkeys(names.tolist())]
    value = _rank_correlation(table) if len(members) >= 4 else float("nan")
    if np.isnan(value):
        return Estimate(float("nan"), float("nan"), float("nan"), n)
    rng = np.random.default_rng(0)
    draws = rng.integers(0, len(members), (RESAMPLES, len(members)))
    found = [_rank_correlation(table[:, np.concatenate([members[g] for g in draw])]) for draw in draws]
    if np.isnan(found).mean() > 0.025:
        return Estimate(value, -1.0, 1.0, n)
    low, high = np.nanquantile(found, (0.025, 0.975))
    return Estimate(value, float(min(low, value)), float(max(high, value)), n)


def _rank_correlation(table: np.ndarray) -> float:
    """Of rows 0 and 1 of (2 or 3, n), the ranks of row 2 taken out; NaN where one side does not vary."""
    ranks = scipy_stats.rankdata(table, axis=1)
    ranks -= ranks.mean(1, keepdims=True)
    if len(ranks) == 3:
        third = float(ranks[2] @ ranks[2])
        if third > 0:
            ranks = ranks[:2] - np.outer(ranks[:2] @ ranks[2], ranks[2]) / third
    spread = np.sqrt((ranks[:2] ** 2).sum(1))
    # what is left after taking out may be rounding alone
    if spread.min() <= 1e-9 * max(1.0, float(table.shape[1])):
        return float("nan")
    return float(np.clip(ranks[0] @ ranks[1] / spread.prod(), -1.0, 1.0))


def calibration_error(probability: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| over equal-mass bins (Naeini et al. 2015)."""
    order = np.argsort(probability, kind="stable")
    if order.size == 0:
        return float("nan")
    parts = np.array_split(order, min(bins, order.size))
    return float(sum(abs(probability[i].mean() - correct[i].mean()) * i.size for i in parts) / order.size)
