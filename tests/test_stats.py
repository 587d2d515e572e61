"""Every number with its n and its interval, against scipy, scikit-learn and the papers' own formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score

from medrobust import InputError, stats


@pytest.mark.parametrize(("hits", "n"), [(0, 1), (0, 20), (1, 1), (3, 7), (20, 20), (95, 100), (1234, 5678)])
def test_a_proportion_has_wilson_s_interval(hits, n):
    found = stats.proportion([True] * hits + [False] * (n - hits))
    known = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert found.value == hits / n
    assert (found.low, found.high) == pytest.approx((known.low, known.high), abs=1e-12)
    assert found.n == n
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_nothing_measured_is_no_number():
    for empty in (stats.proportion([]), stats.median([]), stats.mean([])):
        assert empty.n == 0
        assert all(math.isnan(v) for v in empty[:3])
    assert math.isnan(stats.calibration_error(np.array([]), np.array([])))


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_an_image_add_nothing(copies):
    """Each patient's images all agree: the interval is that of the patients."""
    hits = np.random.default_rng(0).random(60) < 0.7
    once = stats.proportion(hits)
    many = stats.proportion(np.repeat(hits, copies), np.repeat(np.arange(60), copies))
    assert many.n == 60 * copies
    assert many.value == once.value
    assert (many.low, many.high) == pytest.approx((once.low, once.high), abs=0.003)
    naive = stats.proportion(np.repeat(hits, copies))
    assert many.high - many.low > 1.3 * (naive.high - naive.low)


def test_groups_never_narrow_an_interval():
    rng = np.random.default_rng(1)
    for _ in range(30):
        hits, groups = rng.random(40) < 0.5, rng.integers(0, 12, 40)
        alone, grouped = stats.proportion(hits), stats.proportion(hits, groups)
        assert grouped.low <= alone.low + 1e-12
        assert grouped.high >= alone.high - 1e-12
    balanced = np.tile([True, False], 20)
    assert stats.proportion(balanced, np.repeat(np.arange(20), 2)) == stats.proportion(balanced)
    assert stats.proportion(balanced, np.arange(40)) == stats.proportion(balanced)
    assert stats.proportion(balanced, [f"p{i}" for i in range(40)]) == stats.proportion(balanced)


def wilson(hits: int, n: int) -> tuple[float, float]:
    known = scipy_stats.binomtest(hits, n).proportion_ci(method="wilson")
    return known.low, known.high


@pytest.mark.parametrize("hit", [False, True])
@pytest.mark.parametrize(("patients", "images"), [(30, 5), (1, 10), (2, 50), (7, 1)])
def test_patients_who_all_agree_are_worth_one_image_each(hit, patients, images):
    """30 patients of 5 images, all fooled: 0 to 11.4 %, and not 0 to 2.5 % as of 150 independent images."""
    found = stats.proportion([hit] * patients * images, np.repeat(np.arange(patients), images))
    assert (found.low, found.high) == pytest.approx(wilson(patients * hit, patients), abs=1e-12)
    assert found.n == patients * images


def test_patients_of_unequal_sizes_who_all_agree_count_as_so_many_patients():
    groups = [0] * 40 + [1] * 3 + [2, 3, 4]
    assert stats.proportion([True] * 46, groups).low == pytest.approx(wilson(5, 5)[0], abs=1e-12)


def test_one_more_hit_never_lowers_the_upper_end():
    groups = np.repeat(np.arange(30), 5)
    for step in (1, 5, 7):  # hits in the same patient, or in different ones
        hits, highest = np.zeros(150, bool), 0.0
        for k in range(20):
            found = stats.proportion(hits, groups)
            assert found.high >= highest - 0.003
            highest = found.high
            hits[(k * step) % 150 if step != 1 else k] = True


def test_one_or_two_patients_are_few_however_many_images_they_have():
    split = np.tile([True, False], 50)
    one, two = stats.proportion(split, np.zeros(100)), stats.proportion(split, np.repeat([0, 1], 50))
    assert (one.low, one.high) == pytest.approx((0.055, 0.945), abs=0.001)
    assert two.high - two.low > 0.6


@pytest.mark.parametrize("share", [0.03, 0.3, 0.9])
def test_the_interval_of_few_patients_covers_as_often_as_it_says(share):
    rng = np.random.default_rng(9)
    groups = np.repeat(np.arange(20), 5)
    covered = []
    for _ in range(300):
        hits = rng.random(100) < np.repeat(rng.beta(2 * share, 2 * (1 - share), 20), 5)
        found = stats.proportion(hits, groups)
        covered.append(found.low <= share <= found.high)
    assert np.mean(covered) > 0.93


def test_fewer_than_six_images_have_no_interval_of_their_median():
    for n in range(1, 6):
        found = stats.median(np.arange(float(n)))
        assert found.value == (n - 1) / 2
        assert found.n == n
        assert math.isnan(found.low)
        assert math.isnan(found.high)
    six = stats.median(np.arange(6.0))
    assert (six.low, six.high) == (0, 5)


def test_a_median_has_the_interval_of_its_patients():
    values = np.random.default_rng(10).normal(size=40)
    once = stats.median(values)
    copied = stats.median(np.repeat(values, 5), np.repeat(np.arange(40), 5))
    assert copied.value == once.value
    assert copied.low == pytest.approx(once.low, abs=0.15)
    assert copied.high == pytest.approx(once.high, abs=0.15)
    plain = stats.median(np.repeat(values, 5))
    assert copied.high - copied.low > 1.5 * (plain.high - plain.low)
    same = stats.median(np.full(100, math.inf), np.repeat(np.arange(5), 20))
    assert same.value == math.inf
    assert math.isnan(same.low)  # five patients


def test_a_mean_has_the_interval_of_its_patients():
    values = np.random.default_rng(11).normal(size=12)
    once, copied = stats.mean(values), stats.mean(np.repeat(values, 4), np.repeat(np.arange(12), 4))
    assert copied[:3] == pytest.approx(once[:3])
    assert math.isnan(stats.mean([1.0, 2.0, 3.0], ["a", "a", "a"]).low)
    with pytest.raises(InputError, match="3 values but 2 groups"):
        stats.mean([1.0, 2.0, 3.0], ["a", "a"])


def test_the_median_takes_infinities():
    inf = math.inf
    assert stats.median([1.0, inf, inf]).value == inf
    assert stats.median([1.0, 2.0, inf]).value == 2
    assert stats.median([1.0, inf]).value == inf
    assert stats.median([inf, inf]).value == inf
    assert stats.median([1.0, 2.0]).value == 1.5
    mixed = stats.median([*range(1, 60), *[inf] * 41])
    assert mixed.value == 50.5
    assert mixed.low == 40
    assert mixed.high == inf
    assert mixed.n == 100


def test_the_median_s_interval_covers_at_least_as_often_as_it_says():
    rng = np.random.default_rng(2)
    for n in (7, 30, 101):
        covered = [e.low <= 0 <= e.high for e in (stats.median(rng.normal(size=n)) for _ in range(400))]
        assert np.mean(covered) > 0.93


def test_a_mean_has_student_s_interval():
    values = np.random.default_rng(3).normal(5, 2, 13)
    found, known = stats.mean(values), scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.value, found.low, found.high) == pytest.approx((values.mean(), known.low, known.high))
    one = stats.mean([4.0])
    assert one.value == 4
    assert math.isnan(one.low)


def delong(scores: np.ndarray, positive: np.ndarray) -> tuple[float, float]:
    """Area and variance by the definition: every pair compared (DeLong et al. 1988)."""
    x, y = scores[positive], scores[~positive]
    psi = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    return psi.mean(), psi.mean(1).var(ddof=1) / x.size + psi.mean(0).var(ddof=1) / y.size


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_is_scikit_learn_s_with_de_long_s_interval(ties):
    rng = np.random.default_rng(4)
    positive = rng.random(80) < 0.3
    scores = rng.normal(size=80) + positive
    if ties:
        scores = scores.round()
    found = stats.auroc(scores, positive)
    area, variance = delong(scores, positive)
    assert found.value == pytest.approx(roc_auc_score(positive, scores)) == pytest.approx(area)
    half = stats.Z95 * math.sqrt(variance) / (area * (1 - area))
    logit = math.log(area / (1 - area))
    assert found.low == pytest.approx(1 / (1 + math.exp(half - logit)))
    assert found.high == pytest.approx(1 / (1 + math.exp(-half - logit)))
    assert found.n == 80


def test_auroc_of_chance_is_a_half_and_its_interval_says_so():
    rng = np.random.default_rng(5)
    found = stats.auroc(rng.random(2000), rng.random(2000) < 0.5)
    assert found.value == pytest.approx(0.5, abs=0.04)
    assert found.low < 0.5 < found.high
    assert found.high - found.low < 0.06


def test_a_perfect_auroc_of_few_images_is_not_certain():
    few, many = (stats.auroc(np.arange(2 * n), np.arange(2 * n) >= n) for n in (5, 200))
    assert few.value == many.value == 1
    assert few.high == many.high == 1
    assert 0.5 < few.low < 0.95 < many.low < 1
    wrong = stats.auroc(-np.arange(10.0), np.arange(10) >= 5)
    assert wrong.value == wrong.low == 0
    assert wrong.high == pytest.approx(1 - few.low)
    tied = stats.auroc(np.zeros(10), np.arange(10) >= 5)
    assert tied.value == 0.5
    assert tied.low < 0.5 < tied.high


@pytest.mark.parametrize("noise", [0.0, 1.5])
def test_an_auroc_has_the_interval_of_its_patients(noise):
    """Copies of an image add nothing, where the scores overlap (Obuchowski) and where they do not."""
    rng = np.random.default_rng(12)
    positive = np.arange(24) % 2 == 0
    scores = positive + noise * rng.normal(size=24)
    once = stats.auroc(scores, positive)
    copied = stats.auroc(np.repeat(scores, 5), np.repeat(positive, 5), np.repeat(np.arange(24), 5))
    assert copied[:3] == pytest.approx(once[:3], abs=0.002)
    naive = stats.auroc(np.repeat(scores, 5), np.repeat(positive, 5))
    assert copied.high - copied.low > 1.5 * (naive.high - naive.low)


def test_one_image_of_a_class_is_not_known_by_the_other_class_s_spread():
    scores = np.arange(51.0)
    one = stats.auroc(scores, scores == 30)
    assert one.value == pytest.approx(0.6)
    assert one.high - one.low > 0.7
    many_of_one_patient = stats.auroc(scores, scores >= 26, np.where(scores >= 26, 0, scores + 1))
    assert many_of_one_patient.low < 0.7


def test_auroc_needs_both_classes_and_numbers():
    assert math.isnan(stats.auroc([0.1, 0.2], [True, True]).value)
    with pytest.raises(InputError, match="1 of 2 scores are NaN"):
        stats.auroc([0.1, math.nan], [True, False])
    with pytest.raises(InputError, match="differ in length: 3 and 2"):
        stats.auroc([0.1, 0.2, 0.3], [True, False])
    alone = stats.auroc([0.9, 0.1, 0.2], [True, False, False])
    assert alone.value == 1
    assert math.isfinite(alone.low)


def test_calibration_error_of_known_predictors():
    rng = np.random.default_rng(6)
    p = rng.uniform(0.5, 1, 30_000)
    assert stats.calibration_error(p, rng.random(p.size) < p) < 0.02
    sure = np.full(1000, 0.999)
    assert stats.calibration_error(sure, np.arange(1000) % 5 < 3) == pytest.approx(0.399, abs=0.03)
    assert stats.calibration_error(np.array([0.9]), np.array([True])) == pytest.approx(0.1)


def test_a_rank_correlation_is_scipy_s_and_knows_ranks_only():
    rng = np.random.default_rng(5)
    x = rng.normal(size=60)
    y = x + rng.normal(size=60)
    found = stats.spearman(x, y)
    assert found.value == pytest.approx(scipy_stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.n == 60
    assert found.low < found.value < found.high
    assert stats.spearman(np.exp(x), y**3) == found
    assert stats.spearman(x, -y).value == pytest.approx(-found.value)
    perfect = stats.spearman([1, 2, 3, 4, math.inf], [1, 2, 3, 4, 5])
    assert (perfect.value, perfect.high) == pytest.approx((1, 1))
    assert perfect.low < 0.5  # of five rows a perfect order proves little
    assert stats.spearman(range(100), range(100)).low > 0.99
    assert stats.spearman(np.append(x, np.nan), np.append(y, 0.0)) == found


def test_a_rank_correlation_s_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(6)
    covered = []
    for _ in range(60):
        x, y = rng.multivariate_normal([0, 0], [[1, 0.5], [0.5, 1]], 50).T
        found = stats.spearman(x, y)
        covered.append(found.low <= 6 / np.pi * np.arcsin(0.25) <= found.high)
    assert 0.85 <= np.mean(covered) <= 1


def test_copies_narrow_no_rank_correlation():
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(2, 30))
    once, copied = stats.spearman(x, y), stats.spearman(*np.repeat([x, y], 3, axis=1), np.repeat(np.arange(30), 3))
    assert copied[:3] == pytest.approx(once[:3], abs=0.02)


def test_what_a_third_quantity_explains_is_taken_out():
    rng = np.random.default_rng(8)
    z = rng.normal(size=400)
    x, y = z + 0.3 * rng.normal(size=400), z + 0.3 * rng.normal(size=400)
    assert stats.spearman(x, y).value > 0.8
    partial = stats.spearman(x, y, given=z)
    assert partial.low < 0 < partial.high
    a, b, c = (scipy_stats.spearmanr(*p).statistic for p in ((x, y), (x, z), (y, z)))
    assert partial.value == pytest.approx((a - b * c) / math.sqrt((1 - b**2) * (1 - c**2)), abs=1e-9)


def test_a_rank_correlation_that_hangs_on_one_row_is_not_known():
    found = stats.spearman([*[1.0] * 20, 2.0], range(21))
    assert found.value > 0
    assert (found.low, found.high) == (-1, 1)


def test_no_rank_correlation_where_nothing_varies():
    for x, y in (([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]), ([1, 2, 3], [3, 2, 1]), ([], [])):
        assert math.isnan(stats.spearman(x, y).value)
    assert math.isnan(stats.spearman([1, 2, 3, 4], [2, 3, 4, 1], given=[1, 2, 3, 4]).value)
    with pytest.raises(InputError, match="differ in length: 4, 3"):
        stats.spearman([1, 2, 3, 4], [1, 2, 3])
