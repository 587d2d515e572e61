"""Clean rows of several findings, and the order of their outputs."""

from __future__ import annotations

import numpy as np
import pytest

from medrobust import stats
from medrobust.experiments.output_order import outputs_in_order
from medrobust.experiments.rows import clean_rows
from medrobust.results import Kind, Rows, find

CLASSES = ("effusion", "nodule", "hernia")


def drawn(n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities and labels; hernia is in no image, nodule unknown in every fourth."""
    draw = np.random.default_rng(0)
    labels = np.stack([draw.random(n) < 0.4, draw.random(n) < 0.3, np.zeros(n)], 1).astype(np.int64)
    probability = np.clip(0.25 + 0.5 * labels + 0.2 * draw.standard_normal((n, 3)), 0.01, 0.99)
    labels[::4, 1] = -1
    return probability.astype(np.float32), labels


def test_each_finding_is_judged_on_the_images_in_which_it_is_known():
    probability, labels = drawn()
    decisions, patients, rows = (probability > 0.5).astype(np.int64), np.arange(200) // 2, Rows()
    clean_rows(rows, probability, labels, decisions, CLASSES, patients)
    known = labels[:, 1] >= 0
    for metric, there in (("sensitivity", labels[:, 1] == 1), ("specificity", labels[:, 1] == 0)):
        hits = (decisions[:, 1] == labels[:, 1])[there]
        row = find(rows.rows, kind=Kind.CLEAN, metric=metric, class_name="nodule")
        assert row is not None
        assert row.estimate == stats.proportion(hits, patients[there])
    area = find(rows.rows, metric="auroc", class_name="nodule")
    assert area is not None
    assert area.estimate == stats.auroc(probability[known, 1], labels[known, 1] == 1, patients[known])
    assert area.n == 150
    unknown = find(rows.rows, metric="unknown", class_name="nodule")
    assert unknown is not None
    assert unknown.value == 0.25
    empty = find(rows.rows, metric="sensitivity", class_name="hernia")
    assert empty is not None
    assert empty.value is None
    exact = find(rows.rows, metric="accuracy")
    assert exact is not None
    assert exact.value == np.mean(
        [all(d == y for d, y in zip(*r, strict=True) if y >= 0) for r in zip(decisions, labels, strict=True)]
    )
    mean = next(row for row in rows.rows if row.metric == "auroc" and row.get("class_name") is None)
    areas = [r.value for r in rows.rows if r.metric == "auroc" and r.get("class_name") in CLASSES[:2]]
    assert mean.value == pytest.approx(np.mean(areas))


def test_outputs_of_findings_the_wrong_way_round_are_noticed():
    probability, labels = drawn(256)
    assert outputs_in_order(probability, labels, probability > 0.5, CLASSES).passed
    swapped = outputs_in_order(probability[:, [1, 0, 2]], labels, probability > 0.5, CLASSES)
    assert swapped.passed is False
    assert "nodule, effusion" in swapped.detail
    chance = np.random.default_rng(1).random((256, 3))
    assert outputs_in_order(chance, labels, chance > 0.5, CLASSES).passed
