"""What commands print follows from their numbers too, and several classes may be healthy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from medrobust.cli.text import guessed
from medrobust.errors import InputError
from medrobust.experiments.system import healthy_classes
from medrobust.report.detection_tables import estimate_cell
from medrobust.results import Row

SKIN = ("benign", "malignant", "normal")


def test_every_healthy_sounding_class_is_healthy() -> None:
    assert healthy_classes(None, SKIN) == (0, 2)
    assert healthy_classes("normal", SKIN) == (2,)
    assert healthy_classes("normal, benign", SKIN) == (0, 2)
    assert healthy_classes(None, ("a", "b")) == ()
    assert healthy_classes(None, ("normal", "benign")) == ()  # nothing would be a disease
    assert healthy_classes("a,b", ("a,b", "c")) == (0,)  # a name may hold a comma
    with pytest.raises(InputError, match="'fine' is not a class"):
        healthy_classes("normal,fine", SKIN)
    with pytest.raises(InputError, match="leave others"):
        healthy_classes("normal,benign", ("normal", "benign"))


def test_a_predictive_value_that_may_be_anything_is_not_told() -> None:
    row = Row("detector", "predictive_value", 1.0, 0.001, 1.0, 20)
    assert estimate_cell(row).text == "cannot say (0.1–100.0)"
    assert estimate_cell(replace(row, value=0.02, low=0.01, high=0.04)).text == "2.0\u00a0% (1.0–4.0)"


def test_a_classifier_that_guesses_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    guessed("")
    assert capsys.readouterr().out == ""
    guessed("no better than guessing: balanced accuracy 50.0%")
    assert "inconclusive: the classifier is no better than guessing" in capsys.readouterr().out
