"""Data of which little can be said: every command writes what can be said, and nothing that cannot."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medrobust import guessing
from medrobust.detectors import Guard

from . import odd_data
from .bad_inputs import contents
from .test_cli import one_line, run

CPU = ("--device", "cpu")
RIGHT = [k for k in odd_data.KINDS if k != "none right"]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A network, and a table of every kind of data."""
    folder = tmp_path_factory.mktemp("odd")
    odd_data.network().save(folder / "net")
    for kind, make in odd_data.KINDS.items():
        make(folder / kind)
    return folder


def command(home: Path, name: str, kind: str, *options: str | Path) -> tuple[str | Path, ...]:
    data = ("--data", f"csv:{home / kind / 'labels.csv'}")
    return (name, *data, *options, *CPU)


def numbers(value: Any) -> list[Any]:
    """Every {value, low, high, n} in some JSON."""
    if isinstance(value, dict):
        mine = [value] if {"value", "low", "high", "n"} <= set(value) else []
        return mine + [row for v in value.values() for row in numbers(v)]
    return [row for v in value for row in numbers(v)] if isinstance(value, list) else []


def check(folder: Path, shown: str) -> None:
    """No number without images, no interval beside its value; no word of a number that does not exist."""
    assert "Traceback" not in shown
    assert not re.search(r"\b(nan|inf|None)\b", shown)
    for path in folder.rglob("*.json"):
        text = path.read_text()
        assert not re.search(r"\b(NaN|Infinity)\b", text), path
        for row in numbers(json.loads(text)):
            if row["value"] is None:
                assert row["low"] is None, row
                assert row["high"] is None, row
                continue
            assert row["n"] > 0, row
            for end in ("low", "high"):
                assert row[end] is None or math.isfinite(row[end]), row
            assert row["low"] is None or row["low"] <= row["value"], row
            assert row["high"] is None or row["value"] <= row["high"], row


def guesses(kind: str) -> bool:
    """Whether that kind of test images cannot show the network to be better than guessing."""
    return kind in ("one patient", "one class", "three images", "at chance", "none right")


# -- detect ----------------------------------------------------------------------------------------------

DETECT = ("--detectors", "kd,lid", "--attacks", "pgd:steps=2", "--eps", "4/255", "--corrupted", "0")


@pytest.mark.parametrize("kind", RIGHT)
def test_detect_writes_what_can_be_judged_and_names_the_rest(home, tmp_path, capsys, kind):
    out = tmp_path / "run"
    assert run(*command(home, "detect", kind, "--model", home / "net", *DETECT, "--out", out)) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    found = json.loads((out / "detect.json").read_text())
    (one,) = found["runs"]
    assert ("no better than guessing" in shown) == bool(one["facts"]["guesses"]) == guesses(kind)
    left_out = {part["part"]: part["why"] for part in one["left_out"]}
    for part, why in left_out.items():
        assert part in shown
        assert why.split(";")[0][:60] in " ".join(shown.split())
    judged = {(r["detector"], r["fitted_on"]) for r in one["rows"] if r["metric"] == "auroc" and r["value"] is not None}
    # kernel density needs no attacks to be fitted: it is judged on any number of images; LID is learned from attacks
    assert {name for name, _ in judged} >= {"kd"}
    few = one["facts"]["n_attacked"]["pgd:steps=2"] < 10 or kind == "one patient"
    assert (("kd", "no attack") in judged) == few
    assert ("lid, fitted on pgd:steps=2" in left_out) == few
    assert ("picture" in left_out) == (not (out / "tsne.png").exists()) == (kind == "three images")
    for name in ("kd", "lid"):
        assert (f"guard {name}" in left_out) == (not (out / "guards" / name).exists())
    if (out / "guards").exists():
        assert Guard.load(out / "guards" / "kd").threshold < math.inf


def test_a_second_run_says_the_same(home, tmp_path, capsys):
    asked = command(home, "detect", "three images", "--model", home / "net", *DETECT, "--out", tmp_path / "run")
    assert run(*asked) == 0
    first = json.loads((tmp_path / "run" / "detect.json").read_text())["runs"]
    assert run(*asked) == 0
    assert json.loads((tmp_path / "run" / "detect.json").read_text())["runs"] == first


def test_without_other_images_no_threshold_is_set_and_the_area_is_still_told(home, tmp_path, capsys):
    odd_data.table(tmp_path / "few", odd_data.BOTH, rest=16)
    out = tmp_path / "run"
    data = ("--data", f"csv:{tmp_path / 'few' / 'labels.csv'}")
    assert run("detect", *data, "--model", home / "net", *DETECT, *CPU, "--out", out) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    (one,) = json.loads((out / "detect.json").read_text())["runs"]
    by = {(r["detector"], r["protocol"], r["tested_on"], r["metric"]): r for r in one["rows"]}
    assert by["kd", "clean", "pgd:steps=2", "auroc"]["value"] is not None
    assert by["kd", "clean", "pgd:steps=2", "alarms@0.05"]["value"] is None
    assert not any("per_1000" in metric or "predictive" in metric for *_, metric in by)
    assert not (out / "guards").exists()
    assert "left out: thresholds, and with them alarms: only 8 further clean images" in shown
    assert "left out: guard kd; guard lid: there are no images for its threshold" in shown


# -- evade -----------------------------------------------------------------------------------------------

EVADE = ("--detector", "kd,lid", "--eps", "4/255", "--attack", "pgd:steps=2", "--attacked", "3",
         "--evasions", "selective")  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_evade_writes_what_can_be_judged_and_names_the_rest(home, tmp_path, capsys, kind):
    out = tmp_path / "run"
    assert run(*command(home, "evade", kind, "--model", home / "net", *EVADE, "--out", out)) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    found = json.loads((out / "evade.json").read_text())
    facts = found["facts"]
    assert ("no better than guessing" in shown) == bool(facts["guesses"]) == guesses(kind)
    left_out = {part["part"] for part in found["left_out"]}
    few = facts["n_fitted_on"] < 10 or kind == "one patient"
    assert ("detector lid" in left_out) == few
    rows = {(r["detector"], r["metric"]): r for r in found["rows"]}
    assert rows["kd", "fooled"]["n"] == facts["n_attacked"]
    assert (rows["lid", "fooled"]["value"] is None) == few
    assert rows["none", "reach@0.05"]["n"] == facts["n_attacked"]


def test_without_images_for_thresholds_nothing_is_evaded_and_the_rest_is_written(home, tmp_path, capsys):
    odd_data.table(tmp_path / "few", odd_data.BOTH, rest=8)
    out = tmp_path / "run"
    data = ("--data", f"csv:{tmp_path / 'few' / 'labels.csv'}")
    options = (*EVADE[:-1], "matching,selective")
    assert run("evade", *data, "--model", home / "net", *options, *CPU, "--out", out) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    found = json.loads((out / "evade.json").read_text())
    assert {p["part"].split()[0] for p in found["left_out"]} == {"images", "thresholds,", "evasion", "detector"}
    assert {r["detector"] for r in found["rows"] if r["value"] is not None} == {"none"}
    assert "left out: detector kd; detector lid: no threshold is known" in shown
    assert "left out: evasion matching" in shown
    assert "before and after they knew" not in shown


# -- nothing to say --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["detect", "evade", "explain"])
def test_where_no_image_is_read_rightly_one_line_says_so_and_nothing_is_left(home, tmp_path, capsys, name):
    before = contents(tmp_path)
    out = ("--out", tmp_path / "deep" / "run")
    assert run(*command(home, name, "none right", "--model", home / "net", *out)) == 2
    line = one_line(capsys.readouterr().err)
    assert "none of 20 test images is classified right" in line
    assert contents(tmp_path) == before


# -- guessing --------------------------------------------------------------------------------------------


def test_all_of_three_images_is_no_proof_and_an_interval_of_the_classes_is_never_surer_than_that_of_all():
    for n in (2, 3):
        assert guessing.of(np.ones(n, bool), np.arange(n) % 2).no_better
    assert not guessing.of(np.ones(6, bool), np.arange(6) % 2).no_better
    right = np.arange(24) > 0
    one = guessing.of(right, np.arange(24) % 2, ["p"] * 24)
    assert one.no_better
    assert one.balanced.low < 0.2
