"""Two answers about the same images: the interval of their difference, and the exact test."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as scipy_stats

from medrobust import stats


def answers(both: int, first: int, second: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Images that both, only the first, only the second, neither has right."""
    counts = (both, first, second, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


def test_a_paired_difference_has_tango_s_interval():
    """Airway hyper-responsiveness before and after a transplantation: Fagerland et al. 2014, Stat Med 33:2850."""
    one, other = answers(1, 7, 1, 12)
    found = stats.paired_difference(one, other)
    assert found == (pytest.approx(-6 / 21), pytest.approx(-0.517, abs=5e-4), pytest.approx(-0.026, abs=5e-4), 21)
    swapped = stats.paired_difference(other, one)
    assert swapped[:3] == pytest.approx((-found.value, -found.high, -found.low))


def test_without_a_difference_the_interval_is_known_in_closed_form():
    n, z2 = 60, stats.Z95**2
    end = z2 / (n + z2)
    assert stats.paired_difference(*answers(50, 0, 0, 10)) == (0.0, pytest.approx(-end), pytest.approx(end), n)
    assert stats.paired_difference(*answers(0, 0, 20, 0))[:3] == pytest.approx((1, (20 - z2) / (20 + z2), 1))
    assert stats.paired_difference([], []).n == 0


@pytest.mark.parametrize(("first", "second"), [(7, 1), (0, 0), (3, 3), (20, 31)])
def test_the_exact_paired_test_is_mcnemar_s(first, second):
    p = stats.paired_p_value(*answers(5, first, second, 9))
    assert p == pytest.approx(scipy_stats.binomtest(first, first + second).pvalue if first + second else 1.0)


def test_copies_of_an_image_under_one_patient_add_nothing():
    one, other = answers(1, 7, 1, 12)
    thrice = [np.repeat(x, 3) for x in (one, other)]
    patients = np.repeat(np.arange(21), 3)
    assert stats.paired_p_value(*thrice, patients) == pytest.approx(stats.paired_p_value(one, other))
    once = stats.paired_difference(one, other)
    assert stats.paired_difference(*thrice, patients)[:3] == pytest.approx(once[:3])


def test_with_patients_the_two_answers_change_places_patient_by_patient():
    rng = np.random.default_rng(0)
    one, other, patients = rng.random(14) < 0.5, rng.random(14) < 0.8, rng.integers(0, 6, 14)
    sums = np.bincount(patients, weights=other.astype(int) - one)
    totals = [abs(np.dot(signs, sums)) for signs in itertools.product((-1, 1), repeat=6)]
    expected = np.mean(np.array(totals) >= abs(sums.sum()) - 1e-9)
    assert stats.paired_p_value(one, other, patients) == pytest.approx(expected)


@pytest.mark.parametrize("images", [1, 3])
def test_two_answers_that_are_equally_good_are_rarely_told_apart(images):
    """images: of a patient, all read alike."""
    rng = np.random.default_rng(1)
    inside, rejected = [], []
    for _ in range(200):
        one, other = (np.repeat(rng.random(40) < 0.7, images) for _ in range(2))
        groups = np.repeat(np.arange(40), images)
        found = stats.paired_difference(one, other, groups)
        inside.append(found.low <= 0 <= found.high)
        rejected.append(stats.paired_p_value(one, other, groups) < 0.05)
    assert np.mean(inside) >= 0.92
    assert np.mean(rejected) <= 0.07
