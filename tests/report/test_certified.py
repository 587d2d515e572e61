"""Sentences about proofs are functions of their numbers."""

from __future__ import annotations

import itertools

import pytest

from medrobust import stats
from medrobust.report.certified_words import BothSides, between, smoothed
from medrobust.report.comparison import Share
from medrobust.report.words import count, percent

N = 40


def share(hits: int, ok: bool = True) -> Share:
    e = stats.proportion([True] * hits + [False] * (N - hits))
    return Share(e.value, e.low, e.high, e.n, ok)


@pytest.mark.parametrize(
    ("low", "high", "low_ok", "high_ok"),
    list(itertools.product((0, 13, 40), (0, 13, 40), (True, False), (True, False))),
)
def test_the_truth_lies_between_only_where_the_numbers_allow_it(low, high, low_ok, high_ok):
    text, warns = between(BothSides(share(low, low_ok), share(high, high_ok)), "1 grey level")
    assert percent(low / N) in text
    assert percent(high / N) in text
    assert "40" in text
    assert "95" in text
    assert ("lies between" in text) == (low <= high)
    assert ("one of the two is wrong" in text) == (low > high)
    assert warns == (low > high or not (low_ok and high_ok))
    assert ("in doubt" in text) == (warns and low <= high)
    sure = low <= high and low_ok and high_ok
    assert ("No attack can leave less" in text) == (sure and low == high)
    assert ("no sign of weakness" in text) == (sure and low == 0 < high)


def test_without_an_attack_it_is_a_lower_bound():
    text, warns = between(BothSides(share(13), None), "1 grey level")
    assert "at least 32.5" in text
    assert not warns


@pytest.mark.parametrize("doubtful", [False, True])
def test_the_smoothed_classifier_is_never_taken_for_the_one_that_was_attacked(doubtful):
    proved = [(share(13, not doubtful), "L2 0.5"), (share(26), "L2 0.25")]
    text, warns = smoothed(share(30), share(4), proved, 0.25, 1000)
    assert "another classifier than the one that was attacked" in text
    assert all(percent(hits / N) in text for hits in (30, 4, 13, 26))
    assert "deviation 0.25" in text
    assert f"majority of {count(1000)} noisy copies" in text
    assert warns == doubtful == text.endswith("Inconclusive.")
