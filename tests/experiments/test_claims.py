"""From numbers to claims, and networks measured one by one: closed forms, invariances, what is known beforehand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats as scipy_stats

from medrobust import Linf, data, stats
from medrobust.attacks import PGD
from medrobust.classifier import Classifier
from medrobust.experiments import explanation_cells
from medrobust.experiments.adversarial_pairs import Twins
from medrobust.experiments.claims import (
    CANNOT_SAY,
    CONFIRMED,
    NOT_CONFIRMED,
    foretells,
    measured_min_eps,
    more_often,
    verdict,
)
from medrobust.experiments.fragility import MEASURES, FragilityConfig, fragility, trained
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


def network(place: Path, images: data.Dataset) -> Classifier:
    """The one network of these tests: what is reused must have been trained by the same recipe."""
    return trained(place, images, "small_cnn:width=8", epochs=4, seed=0, device="cpu", augment=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, images) -> Path:
    place = tmp_path_factory.mktemp("network")
    network(place, images)
    return place


def test_a_network_is_trained_once(folder, images):
    before = (folder / "model" / "model.safetensors").stat().st_mtime_ns
    again = network(folder, images)
    assert (folder / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert again.provenance["architecture"] == "small_cnn:width=8"
    assert not (folder / "training").exists()


def test_fragility_of_a_network_is_kept_and_hangs_together(folder, images):
    ask = FragilityConfig(attack=PGD(steps=5), eps=(2 / 255, 8 / 255, 32 / 255), limit=40, ball=Linf(32 / 255))
    classifier = network(folder, images)
    found = fragility(Store(folder), classifier, images, ask)
    cells = len(list((folder / "cells").iterdir()))
    again = fragility(Store(folder), classifier, images, ask)
    assert len(list((folder / "cells").iterdir())) == cells
    assert np.array_equal(again.measured_min_eps, found.measured_min_eps)
    assert found.parameters == sum(p.numel() for p in classifier.net.parameters())
    right = found.measured_min_eps > 0
    shares = [found.kept(e) for e in (0.0, *ask.eps)]
    assert [s.n for s in shares] == [int(right.sum())] * 4
    assert shares[0].value == 1
    assert [s.value for s in shares] == sorted((s.value for s in shares), reverse=True)
    assert shares[-1].value == np.isinf(found.measured_min_eps).sum() / right.sum()
    assert set(found.measures) == set(MEASURES)
    assert all(e.n == right.sum() for e in found.measures.values())
    assert 0 <= found.auroc.value <= 1 or found.why


def test_too_few_images_for_a_detector_are_no_error(folder, images):
    ask = FragilityConfig(attack=PGD(steps=2), eps=(8 / 255,), limit=25, ball=Linf(0.001 / 255))
    found = fragility(Store(folder), network(folder, images), images, ask)
    assert np.isnan(found.auroc.value)
    assert "needed" in found.why


def test_eps_star_and_the_estimate_from_the_gradient_agree(folder, images):
    classifier = network(folder, images)
    twins = Twins(Store(folder), classifier, images.split("test"), limit=30)
    min_eps = measured_min_eps(twins, PGD(steps=10), Linf, [k / 2 / 255 for k in range(1, 65)])
    assert (min_eps > 0).all()
    from medrobust import explain

    pixels, labels = twins.part.tensors()
    linear = explain.measure(classifier, pixels, labels, ["linear-eps"], ids=twins.part.ids)["linear-eps"].numpy()
    assert foretells({"linear-eps": linear}, min_eps, twins.groups)["linear-eps"].low > 0.5
    ball, layer = Linf(1 / 255), explain.last_spatial(classifier, pixels.shape)
    noisy = twins.noisy(twins.part, ball)
    _, maps = explanation_cells.maps(classifier, twins.part, noisy, noisy, layer, ("cam",), 0)
    shift = maps["cam-shift.noise"]
    known = shift[~np.isnan(shift)]
    assert len(known) > 0
    assert ((known >= 0) & (known <= 1)).all()
