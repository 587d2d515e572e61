"""From numbers to claims: closed forms, invariances, what is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from medrobust import Linf, data, stats, training
from medrobust.attacks import PGD
from medrobust.classifier import Classifier
from medrobust.experiments import explanation_cells
from medrobust.experiments.adversarial_pairs import AdversarialPairs
from medrobust.experiments.claims import (
    CANNOT_SAY,
    CONFIRMED,
    NOT_CONFIRMED,
    foretells,
    measured_min_eps,
    more_often,
    verdict,
)
from medrobust.stats import Estimate
from medrobust.store import Store


def estimate(low: float, high: float) -> Estimate:
    return Estimate((low + high) / 2, low, high, 10)


@pytest.mark.parametrize(
    ("found", "more", "said"),
    [
        ([estimate(0.6, 0.9)], True, CONFIRMED),
        ([estimate(0.6, 0.9)], False, NOT_CONFIRMED),
        ([estimate(0.4, 0.9)], True, CANNOT_SAY),
        ([estimate(0.6, 0.9), estimate(0.4, 0.9)], True, CANNOT_SAY),
        ([estimate(0.6, 0.9), estimate(0.1, 0.4)], True, NOT_CONFIRMED),
        ([estimate(0.1, 0.4), estimate(0.2, 0.3)], False, CONFIRMED),
        ([estimate(0.6, 0.9), stats.NOTHING], True, CANNOT_SAY),
        ([], True, CANNOT_SAY),
    ],
)
def test_a_verdict_needs_every_interval_on_one_side(found, more, said):
    assert verdict(found, more) == said


def test_more_often_is_mann_and_whitney_s_and_takes_infinities():
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.5, 1, 70), rng.normal(0, 1, 90)
    a, b = np.arange(70), np.arange(90) + 100
    found = more_often(x, y, a, b)
    assert found.value == pytest.approx(scipy_stats.mannwhitneyu(x, y).statistic / (70 * 90))
    assert found.n == 160
    assert found.low < found.value < found.high
    assert more_often(np.exp(x), np.exp(y), a, b) == found
    assert more_often(y, x, b, a).value == pytest.approx(1 - found.value)
    held = np.append(x, [np.inf, np.nan])
    assert more_often(held, y, np.arange(72), b).value == pytest.approx((found.value * 70 + 1) / 71)
    # images of one patient are one witness
    clustered = more_often(np.repeat(x, 3), np.repeat(y, 3), np.repeat(a, 3), np.repeat(b, 3))
    assert clustered.high - clustered.low == pytest.approx(found.high - found.low, rel=0.03)


@pytest.fixture(scope="module")
def images() -> data.Dataset:
    return data.load("phantom:chest@32:n=300").train_on(60, 0)


@pytest.fixture(scope="module")
def classifier(images) -> Classifier:
    return training.fit(images, "small_cnn:width=8", epochs=4, seed=0, device="cpu", augment=False)


def test_eps_star_and_the_estimate_from_the_gradient_agree(tmp_path, classifier, images):
    pairs = AdversarialPairs(Store(tmp_path), classifier, images.split("test"), limit=30)
    min_eps = measured_min_eps(pairs, PGD(steps=10), Linf, [k / 2 / 255 for k in range(1, 65)])
    assert (min_eps > 0).all()
    from medrobust import explain

    pixels, labels = pairs.part.tensors()
    linear = explain.measure(classifier, pixels, labels, ["linear-eps"], ids=pairs.part.ids)["linear-eps"].numpy()
    assert foretells({"linear-eps": linear}, min_eps, pairs.groups)["linear-eps"].low > 0.5
    ball, layer = Linf(1 / 255), explain.last_spatial(classifier, pixels.shape)
    noisy = pairs.noisy(pairs.part, ball)
    _, maps = explanation_cells.maps(classifier, pairs.part, noisy, noisy, layer, ("cam",), 0)
    shift = maps["cam-shift.noise"]
    known = shift[~np.isnan(shift)]
    assert len(known) > 0
    assert ((known >= 0) & (known <= 1)).all()
