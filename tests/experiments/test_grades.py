"""Ordinal grades: how far a flip goes, beside how often it happens; measurements are refused."""

from __future__ import annotations

import numpy as np
import pytest

from medrobust import InputError
from medrobust.data.labels import number_classes
from medrobust.experiments.rows import attack_rows, clean_rows, noise_rows
from medrobust.results import Row, Rows, find

CLASSES = ("grade 0", "grade 1", "grade 2", "grade 3")
LABELS = np.array([0, 1, 2, 3, 3])


def value(rows: list[Row], metric: str, **columns: object) -> float | None:
    row = find(rows, metric=metric, **columns)
    assert row is not None
    return row.value


def test_the_distance_of_flips_is_of_the_images_read_correctly_before():
    min_eps = np.array([0.1, 0.3, np.inf, 0.1, 0.0], np.float32)  # the last was wrong before
    after, rows = np.array([1, 3, 1, 0, 2]), Rows()
    attack_rows(rows, "pgd", (0.1, 0.3), min_eps, LABELS, after, np.zeros(5, bool), CLASSES, None, ordinal=True)
    assert value(rows.rows, "grade_shift", eps=0.1) == (1 + 3) / 4
    assert value(rows.rows, "grade_shift", eps=0.3) == (1 + 2 + 3) / 4
    assert value(rows.rows, "grade_far", eps=0.1) == 1 / 4
    assert value(rows.rows, "grade_far", eps=0.3) == 2 / 4
    assert value(rows.rows, "grade_lowered", eps=0.3) == 1 / 4
    assert value(rows.rows, "success", eps=0.3) == 3 / 4
    plain = Rows()
    attack_rows(plain, "pgd", (0.1,), min_eps, LABELS, after, np.zeros(5, bool), CLASSES, None)
    assert find(plain.rows, metric="grade_shift") is None


def test_noise_and_clean_images_have_their_distance_too():
    rows, decisions = Rows(), np.array([[0], [1], [0], [3], [0]])
    noise_rows(rows, (0.1,), decisions, LABELS, np.array([True, True, True, True, False]), CLASSES, None, True)
    assert value(rows.rows, "grade_shift", attack="noise") == 2 / 4
    probability = np.eye(4)[decisions[:, 0]] * 0.9 + 0.025
    clean_rows(rows, probability, LABELS, decisions[:, 0], CLASSES, None, True)
    assert value(rows.rows, "grade_error") == (2 + 3) / 5


def test_measurements_are_no_classes_and_grades_are():
    with pytest.raises(InputError, match=r"30 numbers from 0\.0 to 14\.5: regression is not covered"):
        number_classes("ages", [str(i / 2) for i in range(30)])
    assert len(number_classes("halves", [str(i / 2) for i in range(10)] * 3)[0]) == 10
    assert len(number_classes("years", [str(i) for i in range(30)] * 2)[0]) == 30
