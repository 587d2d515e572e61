"""How far groups lie apart: known answers, and twins that would give the answer away."""

from __future__ import annotations

import numpy as np
import pytest

import medrobust as mr
from medrobust import explain


def clouds(n: int, gap: float, d: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return draw.normal(size=(n, d)) + gap * labels[:, None], labels


def test_distant_clouds_are_apart_and_one_cloud_is_not():
    far, labels = clouds(60, 20.0)
    found = explain.separability(far, labels, range(60))
    assert found.probe.value == 1
    assert found.silhouette.value > 0.8
    assert found.probe.n == found.silhouette.n == 60
    assert found.chance == 0.5
    same, labels = clouds(200, 0.0)
    found = explain.separability(same, labels, range(200))
    assert found.probe.low < 0.5 < found.probe.high
    assert abs(found.silhouette.value) < 0.05


def test_twins_stay_on_one_side():
    """Labels are drawn, features are drawn, every image is there twice: whoever has seen the twin knows the answer."""
    draw = np.random.default_rng(1)
    features, labels = draw.normal(size=(40, 60)), draw.integers(0, 2, 40)
    twice, names = np.repeat(features, 2, 0), np.repeat(labels, 2)
    leaking = explain.separability(twice, names, range(80))
    honest = explain.separability(twice, names, np.repeat(np.arange(40), 2))
    assert leaking.probe.value > 0.9
    assert honest.probe.low < 0.5 < honest.probe.high
    # and they count once: the interval is that of 40 images
    assert honest.probe.high - honest.probe.low > 1.3 * (leaking.probe.high - leaking.probe.low)


def test_four_groups_and_too_few():
    features, labels = clouds(80, 8.0)
    groups = 2 * labels + (np.arange(80) % 4 >= 2)
    features[:, 0] += 30 * (groups % 2)
    found = explain.separability(features, groups, range(80))
    assert found.probe.value > 0.95
    assert found.scores is None
    with pytest.raises(mr.InputError, match="two groups"):
        explain.separability(features, np.zeros(80), range(80))
    with pytest.raises(mr.InputError, match="one patient only"):
        explain.separability(features, labels, labels)
