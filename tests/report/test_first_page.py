"""The first page: what an attack means in 1,000 studies, and what to do next."""

from __future__ import annotations

import json
import re
import shlex
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from medrobust import prevalence, stats
from medrobust.cli import app
from medrobust.errors import InputError
from medrobust.experiments.config import SUBJECT, AuditSpec
from medrobust.report import advice, advice_words, commands, conditions, findings, patients, plain
from medrobust.report.comparison import Share
from medrobust.report.detection_words import DetectionRate, EvasionRates
from medrobust.report.page import READ_ON
from medrobust.report.patients import Range
from medrobust.report.run import parsed, read
from tests import report_runs
from tests.report.test_conclusions import hundreds, maybe, more, shares

PARSER = typer.main.get_command(app)


def parse(command: str) -> str:
    """The name of a command; an error where it has an option that is not there, or a value that is not allowed."""
    program, *words = shlex.split(command)
    assert program == "medrobust"
    context = PARSER.make_context("medrobust", list(words))
    name, inner, rest = PARSER.resolve_command(context, words)
    inner.make_context(name, rest, parent=context)
    return str(name)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("advised")
    return {name: report_runs.make(root / name, name) for name in report_runs.SCENARIOS}


@pytest.mark.parametrize("name", report_runs.SCENARIOS)
def test_every_command_that_is_advised_is_one(folders: dict[str, Path], name: str) -> None:
    found = findings.find(read(folders[name]))
    for each in advice.of(found):
        assert parse(each.command) in ("audit", "attack", "defend", "detect", "evade", "harden")
        assert ("RUN/model" in each.command) == bool(found.run.conditions.trained_here)


EXPECTED = {
    "fragile": ["Try detectors of attacked images"],
    "robust": ["Attack with larger changes"],
    "inconclusive": ["Attack without gradients"],
    "minimal": ["Attack it"],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_advice_follows_from_the_run(folders: dict[str, Path], name: str) -> None:
    titles = [each.title for each in advice.of(findings.find(read(folders[name])))]
    assert set(EXPECTED[name]) <= set(titles)
    assert ("Attack without gradients" in titles) == (name == "inconclusive")


def test_a_run_s_own_options_stand_in_its_commands(folders: dict[str, Path]) -> None:
    raw = json.loads((folders["robust"] / "results.json").read_text())
    config = {
        "data": "csv:my labels.csv",
        "label": "y",
        "class_map": {"neg": "normal"},
        "mean": [0.5],
        "model": "m:net",
    }
    run = parsed(raw, spec={"config": config})
    command = advice.of(findings.find(run))[0].command
    assert "--data 'csv:my labels.csv' --label y --map neg=normal --mean 0.5" in command
    assert parse(command) == "audit"


def test_the_options_of_advised_commands_are_those_of_the_config() -> None:
    assert {*commands.IMAGES, *commands.NETWORK, "model"} == {*SUBJECT, "send"}
    config = AuditSpec().model_dump(mode="json")
    assert {field: config[field] for field in commands.DEFAULTS} == commands.DEFAULTS


@pytest.mark.parametrize("name", report_runs.SCENARIOS)
def test_no_share_stands_without_its_interval(folders: dict[str, Path], name: str) -> None:
    found = findings.find(read(folders[name]))
    for text in (plain.first_page(found).text, *(paragraph.text for paragraph in plain.sentences(found))):
        assert not re.findall(r"\S+\d\.\d\xa0%(?! \()", text), text


def test_where_to_read_on_names_sections_that_there_are() -> None:
    folder = files("medrobust.report") / "sections"
    code = "".join(file.read_text() for file in folder.iterdir() if file.is_file())
    assert [anchor for anchor in READ_ON if f'"{anchor.removeprefix("compared-")}"' not in code] == []


# -- each advice is called for by its numbers ----------------------------------------------------------------


@given(shares(), maybe)
@hundreds
def test_training_against_one_change_is_advised_only_where_it_beats_random_changes(rate, control) -> None:
    assert bool(advice_words.train_against_one_change(rate, control)) == (rate.ok and more(rate, control))


@given(shares(), maybe, shares(), maybe)
@hundreds
def test_a_guard_is_advised_only_where_it_sees_and_most_do_not_get_past(rate, alarms, plain, knowing) -> None:
    seen = DetectionRate(rate, alarms)
    evasion = None if knowing is None else EvasionRates(seen, plain, knowing)
    made = advice_words.guard(seen, evasion, "KD")
    sees = rate.ok and more(rate, alarms)
    if knowing is None:
        assert bool(made) == sees
        assert made is None or "was not tried" in made.text
    else:
        assert bool(made) == (sees and knowing.ok and knowing.high is not None and knowing.high < 0.5)


@given(shares(), maybe, st.booleans())
@hundreds
def test_rounding_is_advised_only_where_it_takes_the_attack_away(computed, saved, below) -> None:
    made = advice_words.round_first(advice_words.Rounding(computed, saved, "1 grey level", below))
    undone = saved is not None and computed.ok and saved.ok and more(saved, computed)
    assert bool(made) == (below or undone)


@given(shares(), maybe, st.integers(-5, 400))
@hundreds
def test_more_images_are_advised_only_where_some_are_left(at, noise, unused) -> None:
    made = advice_words.more_images(at, noise, unused, "1 grey level")
    wide = at.low is None or at.high is None or at.high - at.low > advice_words.WIDE
    open_ = noise is not None and not more(noise, at) and not more(at, noise)
    assert bool(made) == (unused > 0 and (wide or open_))


@given(shares(), st.floats(0, 1))
@hundreds
def test_other_sizes_are_advised_only_where_the_grid_ended(share, before) -> None:
    assert bool(advice_words.larger(share, before, "x")) == (share.value > before / 2)
    assert bool(advice_words.smaller(share, before, "x")) == (share.value <= before / 2)
    assert bool(advice_words.threshold(share)) == (share.low is not None and share.low > advice_words.SEPARATES)


# -- in 1,000 studies ----------------------------------------------------------------------------------------


@given(shares(), shares())
@hundreds
def test_an_interval_of_a_product_holds_it_and_is_no_narrower_than_either(a: Share, b: Share) -> None:
    made = patients.product(Range.of(a), Range.of(b))
    assert made.value == pytest.approx(a.value * b.value)
    if made.low is not None and made.high is not None:
        assert 0 <= made.low <= made.value + 1e-12 <= made.high + 2e-12 <= 1 + 2e-12
        summed = patients.total(Range.of(a), Range.of(b))
        assert summed.low is not None
        assert 0 <= summed.low <= summed.value + 1e-12


def test_the_interval_of_a_product_holds_the_truth_as_often_as_it_says() -> None:
    """Simulated: sensitivity 0.9 of 200, 0.15 turned of 36."""
    rng, held = np.random.default_rng(0), 0
    right, kept, draws = 0.9, 0.85, 400
    for _ in range(draws):
        a, b = (stats.proportion(rng.random(n) < p) for p, n in ((right, 200), (kept, 36)))
        made = patients.product(Range(a.value, a.low, a.high), Range(b.value, b.low, b.high))
        assert made.low is not None
        assert made.high is not None
        held += made.low <= right * kept <= made.high
    assert 0.92 <= held / draws <= 0.99


def test_a_stated_prevalence_scales_the_counts_and_is_said(folders: dict[str, Path]) -> None:
    """Missed are the prevalence times the share of the sick that is missed; invented, of all others."""
    run = read(folders["fragile"])
    (before,) = patients.lines(findings.find(run))
    stated = findings.find(patients.with_prevalence(run, 0.03))
    (line,) = patients.lines(stated)
    assert line.prevalence == 0.03
    assert line.missed == before.missed
    assert line.invented[1] is not None
    assert line.cases[3].startswith(f"{1000 * 0.97 * line.invented[1].value:.0f} (")
    assert "--prevalence states (of the test images" in patients.table(stated, [line]).caption
    assert ("Prevalence in 1,000 studies", "pneumonia 3.0\xa0% (as --prevalence says)") in conditions.groups(stated)[1][
        1
    ]
    healthy = patients.lines(findings.find(patients.with_prevalence(run, {"normal": 0.9})))
    assert healthy[0].prevalence == pytest.approx(0.1)


@given(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), st.floats(0.01, 0.99))
@hundreds
def test_classes_share_what_a_stated_one_leaves(weights: list[float], share: float) -> None:
    own = {name: w / sum(weights) for name, w in zip("abc", weights, strict=True)}
    every = prevalence.completed({"a": share}, own, several=False)
    assert sum(every.values()) == pytest.approx(1)
    assert every["b"] * own["c"] == pytest.approx(every["c"] * own["b"])
    assert prevalence.completed({"a": share}, own, several=True) == {**own, "a": share}
    assert prevalence.completed({}, own, several=False) == own


@pytest.mark.parametrize("text", ["3", "0", "1", "-1%", "100 %", "nan", "", "a=", "a=0.1,a=0.2", "3%%", "one"])
def test_a_prevalence_that_is_no_share_is_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^--prevalence [^\n]+$"):
        prevalence.read(text)


@pytest.mark.parametrize(("text", "means"), [("3 %", 0.03), ("0.03", 0.03), ("a=3%, b=0.5", {"a": 0.03, "b": 0.5})])
def test_a_prevalence_is_a_share_or_one_a_name(text: str, means: object) -> None:
    assert prevalence.read(text) == pytest.approx(means)


def test_a_prevalence_that_does_not_fit_the_classes_is_one_line() -> None:
    names = ["normal", "mild", "severe"]
    assert prevalence.placed(0.1, names, ["severe"], several=False) == {"severe": 0.1}
    bad = (0.1, names[1:]), (0.1, []), ({"x": 0.1}, names), ({"mild": 0.7, "severe": 0.7}, names)
    for shares_, disease in (*bad, (dict.fromkeys(names, 0.1), names), ({"mild": 3.0}, names)):
        with pytest.raises(InputError, match=r"^--prevalence[^\n]+$"):
            prevalence.placed(shares_, names, disease, several=False)
    assert prevalence.placed({"mild": 0.7, "severe": 0.7}, names, names, several=True) == {"mild": 0.7, "severe": 0.7}


def test_missed_and_invented_are_those_of_the_images(folders: dict[str, Path]) -> None:
    """Every image of the run is attacked: the shares are counts of its images."""
    found = findings.find(read(folders["fragile"]))
    arrays, eps = found.run.arrays, found.reference
    assert eps is not None
    held = arrays[f"min_eps.{found.strongest}"] > eps * (1 + 1e-6)
    sick = arrays["labels"] == 1
    (line,) = patients.lines(found)
    assert line.name == "pneumonia"
    assert line.prevalence == pytest.approx(sick.mean())
    assert line.missed[1] is not None
    assert line.invented[1] is not None
    assert line.missed[1].value == pytest.approx((~held[sick]).mean())
    assert line.invented[1].value == pytest.approx((~held[~sick]).mean())
    assert line.cases[1].startswith(f"{1000 * sick.mean() * (~held[sick]).mean():.0f} (")
