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
from tests import odd_data
from tests.bad_inputs import contents
from tests.cli.test_main import one_line, run

pytestmark = pytest.mark.slow  # every command on six kinds of data, 1 to 5 s each

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
    found = json.loads((out / "results.json").read_text())
    assert ("no better than guessing" in shown) == guesses(kind)
    left_out = {part["part"]: part["why"] for part in found["left_out"]}
    for part, why in left_out.items():
        assert part in shown
        assert why.split(";")[0][:60] in " ".join(shown.split())
    judged = {
        (r["detector"], r["fitted_on"])
        for r in found["rows"]
        if (r["kind"], r["metric"]) == ("detector", "auroc") and r["value"] is not None
    }
    # kernel density needs no attacks to be fitted: it is judged on any number of images; LID is learned from attacks
    assert {name for name, _ in judged} >= {"kd"}
    few = found["conditions"]["detection"]["sizes"][0]["n_attacked"]["pgd:steps=2"] < 10 or kind == "one patient"
    assert (("kd", "none") in judged) == few
    assert ("lid, fitted on pgd:steps=2" in left_out) == few
    assert ("picture" in left_out) == (not (out / "tsne.png").exists()) == (kind == "three images")
    for name in ("kd", "lid"):
        assert (f"guard {name}" in left_out) == (not (out / "guards" / name).exists())
    if (out / "guards").exists():
        assert Guard.load(out / "guards" / "kd").threshold < math.inf


def test_a_second_run_says_the_same(home, tmp_path, capsys):
    asked = command(home, "detect", "three images", "--model", home / "net", *DETECT, "--out", tmp_path / "run")
    assert run(*asked) == 0
    first = json.loads((tmp_path / "run" / "results.json").read_text())
    assert run(*asked) == 0
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == first


def test_without_other_images_no_threshold_is_set_and_the_area_is_still_told(home, tmp_path, capsys):
    odd_data.table(tmp_path / "few", odd_data.BOTH, rest=16)
    out = tmp_path / "run"
    data = ("--data", f"csv:{tmp_path / 'few' / 'labels.csv'}")
    assert run("detect", *data, "--model", home / "net", *DETECT, *CPU, "--out", out) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    rows = json.loads((out / "results.json").read_text())["rows"]
    columns = ("detector", "protocol", "attack", "at_fpr", "metric")
    by = {tuple(r.get(c) for c in columns): r for r in rows if r["kind"] == "detector"}
    assert by["kd", "clean", "pgd:steps=2", None, "auroc"]["value"] is not None
    assert by["kd", "clean", "pgd:steps=2", 0.05, "alarms"]["value"] is None
    assert not any("per_1000" in metric or "predictive" in metric for *_, metric in by)
    assert not (out / "guards").exists()
    assert "left out: thresholds, and with them alarms: only 8 further clean images" in shown
    assert "left out: guard kd; guard lid: there are no images for its threshold" in shown


# -- evade -----------------------------------------------------------------------------------------------

EVADE = (
    "--detectors",
    "kd,lid",
    "--eps",
    "4/255",
    "--attacks",
    "pgd:steps=2",
    "--attacked",
    "3",
    "--evasions",
    "selective",
)


@pytest.mark.parametrize("kind", RIGHT)
def test_evade_writes_what_can_be_judged_and_names_the_rest(home, tmp_path, capsys, kind):
    out = tmp_path / "run"
    assert run(*command(home, "evade", kind, "--model", home / "net", *EVADE, "--out", out)) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    found = json.loads((out / "results.json").read_text())
    assert ("no better than guessing" in shown) == guesses(kind)
    left_out = {part["part"] for part in found["left_out"]}
    (size,), about = found["conditions"]["detection"]["sizes"], found["conditions"]["evasion"]
    few = size["n_attacked"]["pgd:steps=2"] < 10 or kind == "one patient"
    assert ("detector lid" in left_out) == few
    rows = {
        (r["detector"], r["metric"]): r for r in found["rows"] if (r["kind"], r["attack"]) == ("evasion", about["name"])
    }
    assert rows["kd", "fooled"]["n"] == about["n"]
    assert (rows["lid", "fooled"]["value"] is None) == few
    assert rows["none", "reach"]["n"] == about["n"]


def test_without_images_for_thresholds_nothing_is_evaded_and_the_rest_is_written(home, tmp_path, capsys):
    odd_data.table(tmp_path / "few", odd_data.BOTH, rest=8)
    out = tmp_path / "run"
    data = ("--data", f"csv:{tmp_path / 'few' / 'labels.csv'}")
    options = (*EVADE[:-1], "matching,selective")
    assert run("evade", *data, "--model", home / "net", *options, *CPU, "--out", out) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    found = json.loads((out / "results.json").read_text())
    assert {p["part"].split()[0] for p in found["left_out"]} >= {"images", "thresholds,", "evasion", "detector"}
    evaded = [r for r in found["rows"] if r["kind"] == "evasion"]
    assert {r["detector"] for r in evaded if r["value"] is not None} == {"none"}
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


# -- every other command ---------------------------------------------------------------------------------

KINDS = sorted(odd_data.KINDS)
ATTACK = ("--attacks", "pgd:steps=2", "--eps", "1/255,4/255")


@pytest.mark.parametrize("kind", KINDS)
def test_attack_says_that_a_network_at_chance_has_nothing_to_lose(home, capsys, kind):
    data = ("--data", f"csv:{home / kind / 'labels.csv'}")
    assert run("attack", "--model", home / "net", *data, *ATTACK, *CPU) == 0
    shown = capsys.readouterr().out
    check(home / "no such folder", shown)
    assert ("no better than guessing" in shown) == guesses(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_audit_marks_every_number_of_a_network_that_may_be_guessing(home, tmp_path, capsys, kind):
    out = tmp_path / "run"
    parts = ("--no-universal", "--no-detect", "--no-explain", "--no-stored", "--auto", "none")
    assert run(*command(home, "audit", kind, "--model", home / "net", *ATTACK, *parts, "--out", out)) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    assert ("no better than guessing" in shown) == guesses(kind)
    told = json.loads((out / "results.json").read_text())
    under = [r for r in told["rows"] if r["metric"] == "accuracy" and r["eps"]]
    assert under
    if guesses(kind):
        assert {r["status"] for r in under} == {"inconclusive"}
        page = " ".join((out / "report.html").read_text().split())
        assert "not shown to do better than guessing" in page or "no better than guessing" in page
        for line in shown.splitlines():
            assert not ("leave" in line and "inconclusive" not in line.lower()), line


@pytest.mark.parametrize("kind", ["three images", "one class", "at chance"])
def test_explain_says_so_on_its_page(home, tmp_path, capsys, kind):
    out = tmp_path / "run"
    few = ("--measures", "slope-l1,saliency-half", "--landscapes", "1", "--limit", "3", "--attacks", "fgsm")
    assert run(*command(home, "explain", kind, "--model", home / "net", *few, "--out", out)) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    assert "no better than guessing" in shown
    assert "(no interval)" in shown
    page = (out / "report.html").read_text()
    assert "no better than guessing" in page
    assert "there is none of fewer than 6 images" in page


@pytest.mark.parametrize("kind", KINDS)
def test_universal_and_defend_say_so(home, tmp_path, capsys, kind):
    size = ("--norm", "linf", "--eps", "8/255")
    out = tmp_path / "v"
    asked = ("--model", home / "net", "--method", "sgd:passes=1", *size, "--out", out)
    assert run(*command(home, "universal", kind, *asked)) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    assert ("no better than guessing" in shown) == guesses(kind)
    told = json.loads((out / "results.json").read_text())
    assert any("no better than guessing" in r["note"] for r in told["rows"]) == guesses(kind)

    out = tmp_path / "d"
    asked = ("--rounds", "1", "--epochs", "1", "--perturbations", "1", "--method", "sgd:passes=1", *size, "--out", out)
    data = ("--data", f"csv:{home / kind / 'labels.csv'}")
    assert run("defend", "--model", home / "net", *data, *asked, *CPU) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    told = json.loads((out / "results.json").read_text())
    hardened = told["conditions"]["defence"]["guesses"]
    assert ("no better than guessing" in shown) == (guesses(kind) or bool(hardened))
    assert not hardened or hardened in told["conditions"]["defence"]["verdict"]


@pytest.mark.parametrize("kind", KINDS)
def test_train_says_what_its_validation_images_can_show(tmp_path, capsys, kind):
    labels = {"one class": [1] * 8, "three images": [0, 1, 1]}.get(kind, [0, 1] * 4)
    made = odd_data.table(tmp_path / "t", labels, patients=["p"] * len(labels) if kind == "one patient" else None)
    lines = made.read_text().replace(",val", ",other").replace(",test", ",val").replace(",other", ",test")
    made.write_text(lines)  # the odd images are those that it is validated on
    data = ("--data", f"csv:{made}")
    code = run("train", "--out", tmp_path / "out", *data, "--model", odd_data.ARCHITECTURE, "--epochs", "1", *CPU)
    if kind == "one class":
        assert code == 2
        assert "hold pneumonia only" in one_line(capsys.readouterr().err)
        assert not (tmp_path / "out").exists()
        return
    assert code == 0
    shown = capsys.readouterr().out
    check(tmp_path / "out", shown)
    assert "no better than guessing" in shown
    assert f"n = {len(labels)}" in shown


@pytest.mark.parametrize("kind", ["one patient", "one class", "six images", "at chance"])
def test_search_says_what_it_cannot_tell(tmp_path, capsys, kind):
    labels = [1] * 24 if kind == "one class" else [0, 1] * (3 if kind == "six images" else 12)
    said = odd_data.random_labels(24) if kind == "at chance" else None
    patients = ["p"] * 24 if kind == "one patient" else None
    made = odd_data.table(tmp_path / "t", labels, said=said, patients=patients, rest=0)
    made.write_text(
        "\n".join(line.replace(",test", "") for line in made.read_text().splitlines()).replace(",split", "")
    )
    asked = ("--features", "hu", "--budget", "200", "--seeds", "2", "--methods", "adam,pso", "--out", tmp_path / "run")
    code = run("search", "--data", f"csv:{made}", *asked)
    said_of_it = capsys.readouterr()
    if code:
        assert code == 2
        one_line(said_of_it.err)
        assert not (tmp_path / "run").exists()
        return
    check(tmp_path / "run", said_of_it.out)
    assert "cannot say" in said_of_it.out


STUDY = '''"""Odd."""

from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Part, Study, StudyTable, grid


def study(size):
    data = Data("odd", "csv:{table}")
    model = Model("net", data, "{architecture}", {{"epochs": 1}})
    shown = [StudyTable("Accuracy", {{"metric": "accuracy", "attack": "fgsm"}}, ("model", "eps"), "attack")]
    return Study("Odd", "", [Part("a", "A", grid(catalogue.curve, model=model, attack="fgsm", eps=(1 / 255,)), shown)])
'''


@pytest.mark.parametrize("kind", ["one patient", "one class", "none right", "three images", "at chance"])
def test_a_study_of_one_cell_marks_its_numbers(home, tmp_path, capsys, kind):
    file = tmp_path / "odd.py"
    file.write_text(STUDY.format(table=home / kind / "labels.csv", architecture=odd_data.ARCHITECTURE))
    out = tmp_path / "run"
    assert run("study", "run", file, "--size", "smoke", "--out", out) == 0
    check(out, capsys.readouterr().out)
    rows = json.loads((out / "results.json").read_text())["rows"]
    under = [r for r in rows if r["metric"] == "accuracy" and r["attack"] == "fgsm"]
    assert {r["status"] for r in under} == {"inconclusive"}
    assert all("no better than guessing" in r["note"] for r in under)
    assert run("study", "report", out) == 0
    assert "no better than guessing" in (out / "report.html").read_text()
    capsys.readouterr()
    assert run("study", "show", out) == 0
    shown = capsys.readouterr().out
    check(out, shown)
    assert "inconclusive" in shown
