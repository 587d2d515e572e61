"""`medrobust certify`, from the command line to its page; and an audit with proofs and criteria about them."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from safetensors.numpy import load_file

import medrobust as mr
from medrobust import training
from medrobust.results import Row, among, find
from tests.cli.test_main import one_line, run

DATA = "phantom:chest@32:n=120"
GRID = "0.1/255,0.5/255,4/255"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    training.fit(mr.data.load(DATA), "small_cnn", epochs=4, seed=0, device="cpu").save(folder)
    return folder


def rows_of(folder) -> list[Row]:
    told = json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)
    return [Row.read(r) for r in told["rows"]]


def test_both_sides_stand_beside_each_other(model, tmp_path, capsys):
    out, what = tmp_path / "run", ("--model", model, "--data", DATA, "--eps", GRID, "--limit", 6)
    how = ("--bounds", "crown-ibp", "--smoothing", 0.1, "--draws", 60, "--attacks", "pgd:steps=4")
    assert run("certify", *what, *how, "--out", out) == 0
    rows, printed = rows_of(out), capsys.readouterr().out
    assert "proved (CROWN-IBP)" in printed
    assert "abstains on" in printed
    proved = list(among(rows, kind="certified", bound="crown-ibp", metric="accuracy", class_name=None))
    attacked = list(among(rows, kind="attack", attack="pgd:steps=4", metric="accuracy", class_name=None))
    assert [r.eps for r in proved] == [r.eps for r in attacked]
    assert proved[0].value > 0
    assert all(p.n == 6 and 0 <= p.low <= p.value <= a.value for p, a in zip(proved, attacked, strict=True))
    assert all(a.value >= b.value for a, b in pairwise(proved))
    for p, a in zip(proved, attacked, strict=True):
        open_ = find(rows, kind="certified", metric="undecided", eps=p.eps)
        assert open_.value == pytest.approx(a.value - p.value)
    smoothed = list(among(rows, kind="certified", bound="smoothing", metric="accuracy", class_name=None))
    assert [r.eps for r in smoothed] == [0.0, *(r.eps for r in proved)]
    assert find(rows, kind="certified", bound="smoothing", metric="abstained").n == 6
    arrays = load_file(out / "figures.safetensors")
    assert arrays["certified.crown-ibp"].shape == arrays["certified.smoothing"].shape == (6,)
    page = (out / "report.html").read_text()
    assert 'id="certified"' in page
    assert "on the same images" in page
    assert "no attack turns what is proved" in page
    before = (out / "results.json").read_bytes()
    assert run("certify", *what, *how, "--out", out) == 0  # a second time nothing is computed
    cells = json.loads(before)["rows"]
    assert json.loads((out / "results.json").read_text())["rows"] == cells


def test_a_criterion_may_be_about_what_is_proved(model, tmp_path, capsys):
    less = ("--no-universal", "--no-detect", "--no-explain", "--no-stored", "--auto", "none", "--corruptions", "none")
    audit = ("audit", "--model", model, "--data", DATA, "--eps", GRID, "--limit", 6, "--attacks", "fgsm", *less)
    require = "accuracy[kind=certified]@0.5/255 >= 0.99"
    assert run(*audit, "--require", require, "--out", tmp_path / "none") == 2
    assert "without --certify" in one_line(capsys.readouterr().err)
    out = tmp_path / "run"
    assert run(*audit, "--certify", "ibp", "--require", require, "--out", out) in (3, 4)
    assert "Proved (IBP)" in capsys.readouterr().out
    told = json.loads((out / "results.json").read_text())
    assert told["criteria"]["judged"][0]["of"].startswith("certified, accuracy, 0.5")
    assert "What is proved" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        (("--bounds", "magic"), "bounds 'magic' are not known; choose one of ibp, crown-ibp, crown, or none"),
        (("--bounds", "none"), "there is nothing to prove without bounds and without smoothing"),
        (("--smoothing", "-1"), "the noise of a smoothed classifier must be positive"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(wrong, line, tmp_path, capsys):
    assert run("certify", *wrong, "--out", tmp_path / "run") == 2
    assert line in one_line(capsys.readouterr().err)
