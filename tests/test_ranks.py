"""Ranks and corrections against published examples and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from medrobust import InputError, ranks

# Demsar 2006, table 6: areas under the ROC curve of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets;
# its ranks part the two that it prints as 0.975
DEMSAR = np.array(
    [
        [0.763, 0.768, 0.771, 0.798],
        [0.599, 0.591, 0.590, 0.569],
        [0.954, 0.971, 0.968, 0.967],
        [0.628, 0.661, 0.654, 0.657],
        [0.882, 0.888, 0.886, 0.898],
        [0.936, 0.931, 0.916, 0.931],
        [0.661, 0.668, 0.609, 0.685],
        [0.583, 0.583, 0.563, 0.625],
        [0.775, 0.838, 0.866, 0.875],
        [1.000, 1.000, 1.000, 1.000],
        [0.940, 0.962, 0.965, 0.962],
        [0.619, 0.666, 0.614, 0.669],
        [0.972, 0.981, 0.9751, 0.975],
        [0.957, 0.978, 0.946, 0.970],
    ]
)


def test_demsar_s_own_example():
    """Published: mean ranks 3.143, 2.000, 2.893, 1.964; chi2 9.28, F 3.69, critical difference 1.25."""
    found = ranks.friedman(DEMSAR)
    np.testing.assert_allclose(found.mean_ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    # the paper's chi2 leaves ties uncorrected, scipy's does not: 9.28 against a little more
    chi2 = 12 * 14 / (4 * 5) * (float((found.mean_ranks**2).sum()) - 4 * 25 / 4)
    assert chi2 == pytest.approx(9.28, abs=0.01)
    assert 13 * chi2 / (14 * 3 - chi2) == pytest.approx(3.69, abs=0.01)
    expected = scipy_stats.friedmanchisquare(*DEMSAR.T)
    assert (found.chi2, found.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert found.f == pytest.approx(13 * found.chi2 / (14 * 3 - found.chi2))
    assert ranks.critical_difference(4, 14) == pytest.approx(1.25, abs=0.005)
    # published: no pair differs by more than the critical difference here
    assert ranks.cliques(found.mean_ranks, 1.25) == [(found.mean_ranks.min(), found.mean_ranks.max())]


@pytest.mark.parametrize(("methods", "q"), [(2, 1.960), (3, 2.343), (5, 2.728), (10, 3.164)])
def test_nemenyi_s_published_constants(methods, q):
    """Demsar 2006, table 5a."""
    blocks = 20
    unit = np.sqrt(methods * (methods + 1) / (6 * blocks))
    assert ranks.critical_difference(methods, blocks) / unit == pytest.approx(q, abs=1e-3)


def test_friedman_of_equal_methods_and_of_bad_input():
    assert ranks.friedman(np.ones((5, 3))).p == 1
    with pytest.raises(InputError, match="2 blocks and 3 methods"):
        ranks.friedman(np.ones((5, 2)))
    with pytest.raises(InputError, match="some are missing"):
        ranks.friedman(np.array([[1, 2, np.nan], [1, 2, 3]]))


def test_holm_by_hand():
    """Holm 1979: 4, 3, 2 and 1 times the ordered p-values, never falling, never above 1."""
    np.testing.assert_allclose(ranks.holm(np.array([0.01, 0.04, 0.03, 0.005])), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(ranks.holm(np.array([0.9, 0.8])), [1, 1])


def test_cliques_are_the_largest_runs():
    assert ranks.cliques(np.array([1.0, 1.5, 2.4, 5.0]), 1.0) == [(1.0, 1.5), (1.5, 2.4)]
    assert ranks.cliques(np.array([1.0, 3.0]), 1.0) == []


def test_wilcoxon_agrees_with_scipy_and_takes_equal_pairs():
    rng = np.random.default_rng(0)
    for n in (1, 5, 20, 50, 51, 200):
        a, b = rng.normal(size=n), rng.normal(0.3, size=n)
        method = "exact" if n <= 50 else "asymptotic"
        assert ranks.wilcoxon(a, b) == pytest.approx(scipy_stats.wilcoxon(a, b, method=method).pvalue, rel=1e-9)
    assert ranks.wilcoxon(a, a) == 1
    assert np.isnan(ranks.wilcoxon(np.array([1.0, np.nan]), np.zeros(2)))
    assert np.isnan(ranks.wilcoxon(np.zeros(0), np.zeros(0)))


def test_wilcoxon_of_five_pairs_that_all_rise_is_a_sixteenth():
    assert ranks.wilcoxon(np.arange(1, 6), np.zeros(5)) == 0.0625
    assert ranks.wilcoxon(np.full(5, 0.1) + 0.2, np.full(5, 0.1)) == 0.0625  # ties up to rounding


def test_wilcoxon_with_ties_and_equal_pairs_counts_all_signs():
    """Against scipy's count of every sign, which draws them where the pairs are too many."""
    rng = np.random.default_rng(1)
    for _ in range(25):
        d = rng.integers(-3, 4, rng.integers(2, 10)).astype(float)
        if not d.any():
            continue
        counted = scipy_stats.PermutationMethod(n_resamples=np.inf)
        known = scipy_stats.wilcoxon(d, zero_method="zsplit", method=counted).pvalue
        assert ranks.wilcoxon(d, np.zeros_like(d)) == pytest.approx(known, abs=1e-12), d


def test_equal_differences_of_two_splits_prove_nothing():
    mean, low, high, p = ranks.corrected_t(np.array([0.1, 0.1]), 0.25)
    assert mean == pytest.approx(0.1)
    assert np.isnan([low, high]).all()
    assert p > 0.3


def test_the_corrected_test_by_hand_and_more_draws_do_not_make_patients():
    d = np.array([1.0, 2.0, 3.0, 2.0])
    mean, low, high, p = ranks.corrected_t(d, 0.5)
    spread = np.sqrt((1 / 4 + 0.5) * d.var(ddof=1))
    assert (mean, p) == (2, pytest.approx(2 * scipy_stats.t.sf(2 / spread, 3)))
    assert high - low == pytest.approx(2 * scipy_stats.t.ppf(0.975, 3) * spread)
    _, low, high, _ = ranks.corrected_t(np.tile(d, 1000), 0.5)
    assert high - low > 2 * 1.96 * np.sqrt(0.5 * d.var())  # an ordinary t interval would have shrunk to 0.04
    assert ranks.corrected_t(np.zeros(5), 0.5)[3] == 1


def test_false_alarms_of_the_corrected_test_stay_below_the_level():
    """Repeated two-fold splits of one sample whose true difference is nothing: 5 % at most, Wilcoxon far more."""
    rng = np.random.default_rng(1)
    corrected = plain = 0
    for _ in range(200):
        images = rng.normal(size=100)  # how much better a method is on each image; on average not at all
        halves = [images[rng.permutation(100)[:50]].mean() for _ in range(20)]
        corrected += ranks.corrected_t(np.array(halves), 1.0)[3] < 0.05
        plain += ranks.wilcoxon(np.array(halves), np.zeros(20)) < 0.05
    assert corrected <= 20
    assert plain > 60
