"""Area under the ROC curve for images grouped by patient and paired with their adversarial copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats as scipy_stats

from medrobust import seeds, stats
from medrobust.errors import InputError
from medrobust.stats import NOTHING, Z95, Estimate


def folds(groups: Sequence[object] | np.ndarray, k: int = 5, seed: int = 0) -> np.ndarray:
    """int64 (n,): in which of k folds each image is tested. All images of a group share one; sizes are even.

    Keyed by (seed, group), so that it does not depend on the order. InputError for fewer groups than folds.
    """
    names, index, counts = np.unique(np.asarray(groups, dtype=str), return_inverse=True, return_counts=True)
    if k < 2 or len(names) < k:
        raise InputError(
            f"{k} folds need at least {max(k, 2)} patients, or images of different patients, got {len(names)}; "
            "give more images"
        )
    order = sorted(range(len(names)), key=lambda g: seeds.generator(seed, "folds", str(names[g])).random())
    filled, fold = np.zeros(k, dtype=np.int64), np.zeros(len(names), dtype=np.int64)
    for group in order:
        fold[group] = int(np.argmin(filled))
        filled[fold[group]] += counts[group]
    return fold[index]


def auroc(
    clean: np.ndarray,
    attacked: np.ndarray,
    clean_fold: np.ndarray,
    attacked_fold: np.ndarray,
    clean_groups: np.ndarray,
    attacked_groups: np.ndarray,
) -> Estimate:
    """Share of (clean, attacked) pairs of one fold in which the attacked image scores higher, ties counted half.

    Scores (m,) and (n,); only pairs within a fold are compared, as each fold's detector has a scale of its own. The
    95 % interval is Obuchowski's for clustered data (1997, Biometrics 53:567), on the logit scale: a group's clean and
    attacked images move together. Where all images agree, the score interval of ``stats.auroc`` for so many groups.
    """
    if not (np.isfinite(clean).all() and np.isfinite(attacked).all()):
        raise InputError("a detector gave scores that are not finite")
    pairs, above = 0, 0.0
    parts: list[tuple[np.ndarray, np.ndarray, float, int, int]] = []
    for fold in np.unique(clean_fold):
        here, there = clean_fold == fold, attacked_fold == fold
        k, m = int(here.sum()), int(there.sum())
        if not k or not m:
            continue
        x, y = clean[here], attacked[there]
        ranks = scipy_stats.rankdata(np.concatenate([x, y]))
        below_y = (ranks[k:] - scipy_stats.rankdata(y)) / k  # for each attacked image: the clean ones it beats
        above_x = 1 - (ranks[:k] - scipy_stats.rankdata(x)) / m
        area = float(below_y.mean())
        pairs, above = pairs + m * k, above + area * m * k
        names = np.concatenate([clean_groups[here], attacked_groups[there]])
        parts.append((names, np.concatenate([(above_x - area) * m, (below_y - area) * k]), area, m, k))
    if not pairs:
        return NOTHING
    n = sum(m + k for *_, m, k in parts)
    value = above / pairs
    # the influence of an image on the value is its part over all pairs
    names, pull = np.concatenate([p[0] for p in parts]).astype(str), np.concatenate([p[1] for p in parts]) / pairs
    _, index = np.unique(names, return_inverse=True)
    sums = np.bincount(index, weights=pull)
    variance = float((sums**2).sum()) * len(sums) / max(len(sums) - 1, 1)
    if variance < 1e-18 or not 0 < value < 1:
        k = len(np.unique(np.concatenate([p[0][: p[4]] for p in parts])))
        m = len(np.unique(np.concatenate([p[0][p[4] :] for p in parts])))
        return Estimate(value, *stats.score_interval(value, m, k), n)
    logit, spread = np.log(value / (1 - value)), Z95 * np.sqrt(variance) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-v))) for v in (logit - spread, logit + spread))
    return Estimate(value, low, high, n)


def per_thousand(alarms: Estimate) -> Estimate:
    """False alarms per 1,000 clean studies, from the share of clean images that raise one."""
    return Estimate(1000 * alarms.value, 1000 * alarms.low, 1000 * alarms.high, alarms.n)


def predictive_value(detected: Estimate, alarms: Estimate, prevalence: float) -> Estimate:
    """Positive predictive value: the share of attacked images among alarms, where ``prevalence`` of all images is.

    The interval takes the worse ends of both rates together, then the better: at least 95 %. n: the smaller of the two.
    """
    if not 0 < prevalence < 1:
        raise InputError(f"prevalence is a share between 0 and 1, got {prevalence:g}; 0.001 is one image in 1,000")

    def value(tpr: float, fpr: float) -> float:
        hits, misses = prevalence * tpr, (1 - prevalence) * fpr
        return hits / (hits + misses) if hits + misses > 0 else float("nan")

    low, high = value(detected.low, alarms.high), value(detected.high, alarms.low)
    return Estimate(value(detected.value, alarms.value), low, high, min(detected.n, alarms.n))
