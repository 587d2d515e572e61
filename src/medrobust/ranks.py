"""Several methods on the same blocks (data sets, or draws of one): ranks, what tells them apart, and corrections.

Demsar 2006 (JMLR 7:1): Friedman's test and Nemenyi's critical difference over data sets, Wilcoxon's signed ranks
against one reference with Holm's correction. Draws of one data set share images: for those Nadeau & Bengio's
corrected test (2003, Machine Learning 52:239) is the one to use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats as scipy_stats

from medrobust.errors import InputError


class Friedman(NamedTuple):
    """mean_ranks (k,): 1 is best. chi2 with its p; f, Iman and Davenport's better version, with its p_f."""

    mean_ranks: np.ndarray
    chi2: float
    p: float
    f: float
    p_f: float
    blocks: int


def ranks(values: np.ndarray) -> np.ndarray:
    """(b, k): rank of each method in each block; the highest value is 1, ties share the mean."""
    return np.asarray(scipy_stats.rankdata(-np.asarray(values, dtype=float), axis=1))


def friedman(values: np.ndarray) -> Friedman:
    """Do k methods differ on b blocks? values (b, k), higher is better; needs b >= 2 and k >= 3."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[0] < 2 or values.shape[1] < 3:
        raise InputError(f"Friedman's test needs 2 blocks and 3 methods or more, got values of shape {values.shape}")
    if np.isnan(values).any():
        raise InputError("Friedman's test needs a value for every method on every block, some are missing")
    b, k = values.shape
    mean_ranks = ranks(values).mean(0)
    if (values == values[:, :1]).all():
        return Friedman(mean_ranks, 0.0, 1.0, 0.0, 1.0, b)
    chi2, p = (float(v) for v in scipy_stats.friedmanchisquare(*values.T))
    rest = b * (k - 1) - chi2
    f = np.inf if rest <= 1e-12 * b * k else (b - 1) * chi2 / rest
    return Friedman(mean_ranks, chi2, p, float(f), float(scipy_stats.f.sf(f, k - 1, (k - 1) * (b - 1))), b)


def critical_difference(methods: int, blocks: int, alpha: float = 0.05) -> float:
    """Nemenyi's: mean ranks that differ by less are not told apart at ``alpha``, all pairs together."""
    q = float(scipy_stats.studentized_range.ppf(1 - alpha, methods, np.inf)) / np.sqrt(2)
    return float(q * np.sqrt(methods * (methods + 1) / (6 * blocks)))


def cliques(mean_ranks: np.ndarray, difference: float) -> list[tuple[float, float]]:
    """(first, last) rank of each largest run of methods that lie within ``difference`` of each other."""
    ordered = np.sort(mean_ranks)
    out: list[tuple[float, float]] = []
    for i, first in enumerate(ordered):
        last = int(np.searchsorted(ordered, first + difference, side="right")) - 1
        if last > i and (not out or ordered[last] > out[-1][1]):
            out.append((float(first), float(ordered[last])))
    return out


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction (1979): adjusted p-values, in the order given."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p, kind="stable")
    adjusted = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(p.size, 0, -1)))
    out = np.empty_like(p)
    out[order] = adjusted
    return out


EXACT = 50
"""Up to so many pairs Wilcoxon's p is exact; beyond, its normal approximation agrees to three digits."""


def wilcoxon(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of Wilcoxon's signed ranks for paired values; 1 where no pair differs, NaN of nothing or of NaN.

    Up to 50 pairs from the exact distribution given the ranks, ties and equal pairs included; beyond, the normal
    approximation. Differences equal up to rounding (1e-12 of the largest) are ties.
    """
    difference = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    if not difference.size or not np.isfinite(difference).all():
        return float("nan")
    if not difference.any():
        return 1.0
    difference = np.round(difference / np.abs(difference).max(), 12)
    # pairs without a difference count half for each side: dropped, a few others could tell methods apart that agree
    if difference.size > EXACT:
        return float(scipy_stats.wilcoxon(difference, zero_method="zsplit", method="asymptotic").pvalue)
    differs = difference != 0
    twice = np.rint(2 * scipy_stats.rankdata(np.abs(difference)))[differs].astype(int)  # whole numbers despite ties
    up = int(twice[difference[differs] > 0].sum())
    share = np.zeros(twice.sum() + 1)  # of the 2^n signs, the share with each sum of positive ranks
    share[0] = 1.0
    for rank in twice:
        share[rank:] += share[:-rank].copy()
        share /= 2
    return float(min(1.0, 2 * min(share[: up + 1].sum(), share[up:].sum())))


def detectable(low: float, high: float, splits: int, comparisons: int = 1, power: float = 0.8) -> float:
    """Smallest true difference that ``corrected_t`` at 5 % would call one with that power, from its 95 % interval.

    splits: differences behind the interval. comparisons: tests that share the 5 %: the first step of Holm's correction
    divides it by their number. NaN where there is no interval. Cohen 1988, chapter 2, with Student's t for both terms.
    """
    if splits < 2 or not (np.isfinite(low) and np.isfinite(high)):
        return float("nan")
    t = scipy_stats.t(splits - 1)
    spread = (high - low) / 2 / float(t.ppf(0.975))
    return float(t.ppf(1 - 0.025 / comparisons) + t.ppf(power)) * spread


def corrected_t(difference: np.ndarray, share: float) -> tuple[float, float, float, float]:
    """(mean, low, high, p) of differences between two methods over J repeated splits of the same images.

    share: test images per training image in a split, 1 / (folds - 1) for cross-validation. The variance of the mean
    is taken as (1 / J + share) times that of the splits (Nadeau & Bengio 2003; for repeated cross-validation Bouckaert
    & Frank 2004): training sets overlap, and more repetitions do not make more patients. Where all splits differ by the
    same, there is no variance and no interval (NaN), and p is the sign test's for as many independent splits as that
    variance allows.
    """
    d = np.asarray(difference, dtype=float)
    if d.size < 2:
        return float(d.mean()) if d.size else float("nan"), float("nan"), float("nan"), float("nan")
    mean, spread = float(d.mean()), float(np.sqrt((1 / d.size + share) * d.var(ddof=1)))
    if spread <= 1e-12 * abs(mean):
        independent = d.size / (1 + share * d.size)
        return mean, float("nan"), float("nan"), 1.0 if mean == 0 else min(1.0, 2 * 0.5**independent)
    half = float(scipy_stats.t.ppf(0.975, d.size - 1)) * spread
    return mean, mean - half, mean + half, float(2 * scipy_stats.t.sf(abs(mean) / spread, d.size - 1))
