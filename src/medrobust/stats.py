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


Groups = Sequence[object] | np.ndarray | None
"""One entry an image, the patient it belongs to; None where every image has a patient of its own."""


def members(groups: Groups, mask: np.ndarray) -> Groups:
    """The groups of the images in ``mask``, bool (n,)."""
    return None if groups is None else [g for g, chosen in zip(groups, mask, strict=True) if chosen]


def proportion(hits: Sequence[bool] | np.ndarray, groups: Groups = None) -> Estimate:
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


def design_effect(values: np.ndarray, groups: Groups, low: float = 0.0, high: float = 1.0) -> float:
    """Variance of the mean of ``values``, ``low`` to ``high``, when images come in groups, over that of independent
    images.

    At least 1; at most images per group, so that the effective sample size is never below the number of groups. Where
    all images agree the data hold no variance, and the images of a group count as one. Near that point few groups say
    how alike the images of one are: two groups of mean size are added, one all ``high`` and one all ``low`` (as Agresti
    & Coull 1998 add two of each), so that a first hit among many images does not suddenly count them all as
    independent.
    """
    values = np.asarray(values, dtype=float)
    if groups is None or values.size < 2:
        return 1.0
    index, count = _numbered(groups, values.size)
    if count == values.size:
        return 1.0
    size = values.size / count
    if count == 1 or values.min() == values.max():
        return size
    n, total = values.size + 2 * size, count + 2
    mean = (float(values.sum()) + size * (low + high)) / n
    residuals = np.bincount(index, weights=values - mean, minlength=count)
    squares = float((residuals**2).sum()) + (size * (high - mean)) ** 2 + (size * (mean - low)) ** 2
    variance = (float((values**2).sum()) + size * (low**2 + high**2)) / n - mean**2
    clustered = total / (total - 1) * squares / n**2
    return min(size, max(1.0, clustered / (variance / n)))


def _numbered(groups: Sequence[object] | np.ndarray, n: int) -> tuple[np.ndarray, int]:
    """int (n,): the number of each image's group, and how many groups there are."""
    names = np.asarray(groups, dtype=str)
    if names.shape != (n,):
        raise InputError(f"{n} values but {names.size} groups; give the group of each value")
    _, index = np.unique(names, return_inverse=True)
    return index, int(index.max()) + 1 if n else 0


def paired_difference(
    first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray, groups: Groups = None
) -> Estimate:
    """Share of true entries of ``second`` less that of ``first``, two answers about the same images, from -1 to 1.

    Tango's score interval (1998, Stat Med 17:891). groups: as for ``proportion``: with images of one patient it is that
    of n / design effect images, where the design effect is that of the differences between the two answers.
    """
    change = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    n = change.size
    if n == 0:
        return NOTHING
    gained, lost = float((change > 0).sum()), float((change < 0).sum())
    effect = design_effect(change, groups, -1.0, 1.0)
    low, high = _tango(gained / effect, lost / effect, n / effect)
    value = (gained - lost) / n
    return Estimate(value, min(low, value), max(high, value), n)


def _tango(gained: float, lost: float, n: float) -> tuple[float, float]:
    """Ends of the differences d whose score test does not reject. gained, lost: images that one of the two answers has
    right; they and n may be fractions, of an effective sample."""
    from scipy.optimize import brentq

    def score(d: float) -> float:
        b = (2 * n - gained + lost) * d - gained - lost
        share = (np.sqrt(b**2 + 8 * n * lost * d * (1 - d)) - b) / (4 * n)
        variance = n * (2 * share + d * (1 - d))
        return float((gained - lost - n * d) / np.sqrt(variance)) if variance > 0 else 0.0

    value, edge = (gained - lost) / n, 1 - 1e-12
    low = -1.0 if value <= -edge else float(brentq(lambda d: score(d) - Z95, -edge, value))
    high = 1.0 if value >= edge else float(brentq(lambda d: score(d) + Z95, value, edge))
    return low, high


def paired_p_value(
    first: Sequence[bool] | np.ndarray, second: Sequence[bool] | np.ndarray, groups: Groups = None
) -> float:
    """Exact two-sided p that two answers about the same images are right equally often; 1 where none differs.

    McNemar's exact test (1947, Psychometrika 12:153). groups: as for ``proportion``; the two answers then change places
    for all images of a patient at once, in all 2**patients ways (Pitman's test of paired differences, 1937, JRSS
    Suppl 4:119): with one image a patient that is McNemar's.
    """
    change = np.asarray(second, dtype=int) - np.asarray(first, dtype=int)
    index = np.arange(change.size) if groups is None else _numbered(groups, change.size)[0]
    sums = np.abs(np.bincount(index, weights=change)).astype(int) if change.size else np.zeros(0, dtype=int)
    single = int((sums == 1).sum())
    # chances of each total from -sum to sum: of the ones together, then of the larger ones, each with either sign
    chances = np.zeros(2 * single + 1)
    chances[::2] = scipy_stats.binom.pmf(np.arange(single + 1), single, 0.5)
    for size in sums[sums > 1].tolist():
        chances = (np.pad(chances, (0, 2 * size)) + np.pad(chances, (2 * size, 0))) / 2
    middle, observed = int(sums.sum()), abs(int(change.sum()))
    totals = np.abs(np.arange(-middle, middle + 1))
    return float(min(1.0, chances[totals >= observed].sum()))


def median(values: Sequence[float] | np.ndarray, groups: Groups = None) -> Estimate:
    """Median with its distribution-free 95 % interval from order statistics; infinities are allowed.

    groups: as for ``proportion``: the interval is that of so many fewer images as the share below the median has
        independent ones (Woodruff 1952, JASA 47:635).
    The order statistics of fewer than 6 images hold the median less often than 95 %: there is no interval, its ends are
    NaN.
    """
    values = np.asarray(values, dtype=float)
    n = values.size
    if n == 0:
        return NOTHING
    ordered = np.sort(values)
    middle = (ordered[(n - 1) // 2], ordered[n // 2])
    # the mean of inf and a number is inf, of two infs is nan: name it inf
    value = float(middle[0] if middle[0] == middle[1] else np.mean(middle))
    # images at the median itself belong to either side
    effective = n / max(design_effect(values < value, groups), design_effect(values <= value, groups))
    whole = int(effective + 1e-9)
    low, high = (int(v) for v in scipy_stats.binom.interval(0.95, whole, 0.5))
    if low < 1:
        return Estimate(value, float("nan"), float("nan"), n)
    first, last = int((low - 1) * n / whole), int(np.ceil((high + 1) * n / whole - 1e-9)) - 1
    return Estimate(value, float(ordered[first]), float(ordered[last]), n)


def mean(values: Sequence[float] | np.ndarray, groups: Groups = None) -> Estimate:
    """Mean with its 95 % Student interval; no interval (NaN) of one image or one group.

    groups: as for ``proportion``: the variance is that between groups, and never less than that of independent images.
    """
    values = np.asarray(values, dtype=float)
    n = values.size
    if n == 0:
        return NOTHING
    centre = float(values.mean())
    index, count = (np.arange(n), n) if groups is None else _numbered(groups, n)
    if count == 1:
        return Estimate(centre, float("nan"), float("nan"), n)
    sums = np.bincount(index, weights=values - centre)
    between = np.sqrt(count / (count - 1) * float((sums**2).sum())) / n
    half = float(scipy_stats.t.ppf(0.975, count - 1) * max(between, values.std(ddof=1) / np.sqrt(n)))
    return Estimate(centre, centre - half, centre + half, n)


def auroc(
    scores: Sequence[float] | np.ndarray, positive: Sequence[bool] | np.ndarray, groups: Groups = None
) -> Estimate:
    """Area under the ROC curve, ties counted half, with DeLong's interval on the logit scale.

    DeLong et al. 1988 (Biometrics 44:837) by the midrank way of Sun & Xu 2014 (IEEE SPL 21:1389). groups: as for
    ``proportion``; the variance is then Obuchowski's for clustered data (1997, Biometrics 53:567), and never less than
    DeLong's. Where that variance is zero (an area of exactly 0 or 1) or a side has one image or group, the interval
    holds the areas from which the one seen lies within 1.96 of Hanley & McNeil's standard errors (the score interval
    of Newcombe 2006, Stat Med 25:559) for as many images as there are groups. NaN where a class has no image.
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
    index, count = (np.arange(n), n) if groups is None else _numbered(groups, n)
    sides = len(np.unique(index[positive])), len(np.unique(index[~positive]))
    if min(sides) < 2:
        return Estimate(area, *score_interval(area, *sides), n)
    variance = above.var(ddof=1) / m + below.var(ddof=1) / k
    if count < n:
        up = np.bincount(index[positive], weights=above - area, minlength=count) / m
        down = np.bincount(index[~positive], weights=below - area, minlength=count) / k
        own = sum(s / (s - 1) * float((part**2).sum()) for s, part in zip(sides, (up, down), strict=True))
        variance = max(variance, own + 2 * count / (count - 1) * float((up * down).sum()))
    if variance == 0:
        return Estimate(area, *score_interval(area, *sides), n)
    logit, spread = np.log(area / (1 - area)), Z95 * np.sqrt(variance) / (area * (1 - area))
    low, high = (1 / (1 + np.exp(-v)) for v in (logit - spread, logit + spread))
    return Estimate(area, float(low), float(high), n)


def score_interval(area: float, m: int, k: int) -> tuple[float, float]:
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
    (Efron & Tibshirani 1993). The interval is never narrower than that of Bonett & Wright (2000, Psychometrika 65:23)
    for as many rows as there are groups; without that, a perfect order of five rows would be certain.
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
    if len({len(m) for m in members}) == 1:
        correlations = _rank_correlations(table[:, np.stack(members)[draws].reshape(RESAMPLES, -1)].swapaxes(0, 1))
    else:
        resamples = [table[:, np.concatenate([members[g] for g in draw])] for draw in draws]
        correlations = np.array([_rank_correlation(one) for one in resamples])
    if np.isnan(correlations).mean() > 0.025:
        return Estimate(value, -1.0, 1.0, n)
    low, high = np.nanquantile(correlations, (0.025, 0.975))
    wide = _rank_interval(value, len(members), len(table) - 2)
    low, high = min(low, wide[0]), max(high, wide[1])
    return Estimate(value, float(min(low, value)), float(max(high, value)), n)


def _rank_interval(value: float, n: int, given: int) -> tuple[float, float]:
    """Bonett & Wright's of n rows, ``given`` quantities taken out. A perfect order counts as one with two neighbours
    swapped, the nearest one whose standard error is finite."""
    if n - 3 - given < 1:
        return -1.0, 1.0
    nearest = 1 - 12 / (n * (n**2 - 1))
    inside = float(np.clip(value, -nearest, nearest))
    half = Z95 * np.sqrt((1 + inside**2 / 2) / (n - 3 - given))
    return float(np.tanh(np.arctanh(inside) - half)), float(np.tanh(np.arctanh(inside) + half))


def _rank_correlation(table: np.ndarray) -> float:
    """Of one table (2 or 3, n)."""
    return float(_rank_correlations(table[None])[0])


def _rank_correlations(tables: np.ndarray) -> np.ndarray:
    """(t,) of tables (t, 2 or 3, n): rows 0 and 1, the ranks of row 2 taken out; NaN where one side does not vary."""
    ranks = scipy_stats.rankdata(tables, axis=2)
    ranks -= ranks.mean(2, keepdims=True)
    if ranks.shape[1] == 3:
        third = (ranks[:, 2] ** 2).sum(1)
        slopes = np.einsum("tan,tn->ta", ranks[:, :2], ranks[:, 2]) / np.where(third > 0, third, 1.0)[:, None]
        ranks = ranks[:, :2] - slopes[:, :, None] * ranks[:, 2:]
    spread = np.sqrt((ranks[:, :2] ** 2).sum(2))
    # what is left after taking out may be rounding alone
    varies = spread.min(1) > 1e-9 * max(1.0, float(tables.shape[2]))
    shared = (ranks[:, 0] * ranks[:, 1]).sum(1)
    return np.where(varies, np.clip(shared / np.where(varies, spread.prod(1), 1.0), -1.0, 1.0), np.nan)


def calibration_error(probability: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| over equal-mass bins (Naeini et al. 2015)."""
    order = np.argsort(probability, kind="stable")
    if order.size == 0:
        return float("nan")
    parts = np.array_split(order, min(bins, order.size))
    return float(sum(abs(probability[i].mean() - correct[i].mean()) * i.size for i in parts) / order.size)
