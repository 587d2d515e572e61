"""`medrobust evade`: the numbers of one command are kept, agree with each other, and are not made twice."""

from __future__ import annotations

import pytest

from tests.cli.test_main import run
from tests.results_files import numbers

pytestmark = pytest.mark.slow  # a run of the whole command

PHANTOM = ("--data", "phantom:chest@32:n=480")
QUICK = (
    "--detectors",
    "kd,softmax",
    "--eps",
    "4/255,8/255",
    "--at",
    "8/255",
    "--attacks",
    "pgd:steps=5",
    "--limit",
    "40",
    "--attacked",
    "10",
    "--evasions",
    "selective,matching",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evade") / "model"
    assert run("train", "--out", folder, *PHANTOM, "--model", "small_cnn", "--epochs", "3", "--device", "cpu") == 0
    return folder


def test_one_command_leaves_the_numbers_before_and_after(model, tmp_path, capsys):
    command = ("evade", "--model", model, *PHANTOM, *QUICK, "--out", tmp_path)
    assert run(*command) == 0
    shown = capsys.readouterr().out
    assert "before and after they knew" in shown
    assert "raise no alarm at 5 % false" in " ".join(shown.split())
    found = numbers(tmp_path / "results.json")
    name = found["conditions"]["evasion"]["name"]
    by = {
        (r["detector"], r["metric"], r.get("at_fpr"), round(r["eps"] * 255)): r
        for r in found["rows"]
        if r["kind"] == "evasion" and r["attack"] == name
    }
    for detector in ("kd", "softmax"):
        fooled, success = by[detector, "fooled", None, 8], by[detector, "success", 0.05, 8]
        seen = by[detector, "detected", 0.05, 8]
        assert fooled["n"] == success["n"] == found["conditions"]["evasion"]["n"] == 10
        assert seen["n"] == round(10 * fooled["value"])
        assert success["value"] == pytest.approx(fooled["value"] * (1 - (seen["value"] or 0)))
        assert by[detector, "success", 0.01, 8]["value"] >= success["value"]
        reach = [by[detector, "reach", 0.05, eps]["value"] for eps in (4, 8)]
        assert reach[0] <= reach[1] >= success["value"]
        assert success["low"] <= success["value"] <= success["high"]
    assert len(found["checks"]) == 6  # four of the searches, that of the order of outputs, that of the gradient
    # where no detector looks, the same search fools no fewer images: it may stop at the first that does
    bare = {eps: by["none", "reach", 0.05, eps]["value"] for eps in (4, 8)}
    assert bare[4] <= bare[8]
    for detector in ("kd", "softmax"):
        assert bare[8] >= by[detector, "fooled", None, 8]["value"]
        assert bare[4] >= by[detector, "reach", 0.05, 4]["value"]
    assert {r["detector"] for r in found["rows"] if r["kind"] == "detector"} == {"kd", "softmax"}
    assert "Evasion of detectors" in (tmp_path / "report.html").read_text()
    assert "no detector" in shown

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").rglob("*.json")}
    assert run(*command) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").rglob("*.json")} == before
    assert numbers(tmp_path / "results.json") == found


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--detectors", "ensemble"), "detector 'ensemble' is not known"),
        (("--evasions", "magic"), "evasion 'magic' is not known"),
        (("--at", "3/255"), "--at must be one of --eps"),
        (("--attacks", "fgsm,pgd"), "fitted on one attack"),
        (("--attacked", "0"), "--attacked must be at least 1"),
        (("--layers", "conv9"), "no layer 'conv9'"),
        (("--model", "nowhere"), "is not a folder"),
    ],
)
def test_bad_input_is_one_line(model, tmp_path, capsys, options, says):
    assert run("evade", "--model", model, *PHANTOM, *QUICK, "--out", tmp_path, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in error
    assert error.startswith("medrobust: ")
