"""`medrobust detect`: numbers, a picture and guards from one command; bad input in one line."""

from __future__ import annotations

import pytest

from medrobust import Classifier, data
from medrobust.detectors import Guard
from tests.cli.test_main import run
from tests.results_files import numbers

pytestmark = pytest.mark.slow  # runs of the whole command

PHANTOM = ("--data", "phantom:chest@32:n=700")
QUICK = (
    "--detectors",
    "kd,softmax",
    "--attacks",
    "fgsm,pgd:steps=5",
    "--eps",
    "8/255",
    "--limit",
    "60",
    "--corrupted",
    "10",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detect") / "model"
    assert run("train", "--out", folder, *PHANTOM, "--model", "small_cnn", "--epochs", "3", "--device", "cpu") == 0
    return folder


def test_one_command_leaves_numbers_a_picture_and_guards(model, tmp_path, capsys):
    command = ("detect", "--model", model, *PHANTOM, *QUICK, "--protocol", "both", "--out", tmp_path)
    assert run(*command) == 0
    shown = capsys.readouterr().out
    assert "AUROC" in shown
    assert "False alarms" in shown
    assert "AUROC from one attack to another" in shown
    said = " ".join(shown.split())
    assert "if 0.1 % of all studies are attacked" in said
    assert "False alarms in 1,000 studies" in said
    found = numbers(tmp_path / "results.json")
    columns = ("detector", "fitted_on", "attack", "corruption", "protocol", "metric", "at_fpr")
    rows = {tuple(r.get(c) for c in columns): r for r in found["rows"]}
    pgd = "pgd:steps=5"
    for protocol in ("clean", "paper"):
        row = rows["kd", pgd, pgd, None, protocol, "auroc", None]
        assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
        assert row["n"] > 40
    (size,) = found["conditions"]["detection"]["sizes"]
    assert rows["kd", "fgsm", pgd, None, "clean", "alarms", 0.05]["n"] == size["n_attacked"][pgd]
    assert rows["softmax", pgd, "none", "blur", "clean", "alarms", 0.05]["n"] <= 10
    assert not any("@" in metric for *_, metric, _ in rows)
    page = (tmp_path / "report.html").read_text()
    assert "AUROC from one attack to another" in page
    assert "Detection of attacks" in page
    assert (tmp_path / "tables.tex").read_text().count("begin{table}") >= 3
    assert (tmp_path / "tsne.png").stat().st_size > 10_000
    guard = Guard.load(tmp_path / "guards" / "kd")
    part = data.load(PHANTOM[1], size=32).split("val")
    referred = guard(part).referred.float().mean()
    assert float(referred) < 0.3
    assert guard.classifier.digest() == Classifier.load(model).digest()

    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").rglob("*.json")}
    assert run(*command) == 0
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "cells").rglob("*.json")} == before
    assert numbers(tmp_path / "results.json") == found


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--detectors", "ensemble"), "detector 'ensemble' is not known"),
        (("--protocol", "fair"), "protocol 'fair' is not known"),
        (("--fpr", "5"), "--fpr is a share"),
        (("--eps", "2"), "more than the whole pixel range"),
        (("--attacks", "magic"), "attack 'magic' is not known"),
        (("--layers", "conv9"), "no layer 'conv9'"),
        (("--modality", "ct"), "modality 'ct' is not known"),
        (("--limit", "-1"), "--limit must not be negative"),
        (("--severities", "3,6"), "--severities are of 1, 2, 3, 4, 5"),
        (("--corrupted", "-1"), "--corrupted must not be negative"),
        (("--prevalence", "2"), "prevalence is a share"),
        (("--model", "nowhere"), "is not a folder"),
    ],
)
def test_bad_input_is_one_line(model, tmp_path, capsys, options, says):
    start = ("detect", "--model", model, *PHANTOM, *QUICK, "--out", tmp_path)
    assert run(*start, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in error
    assert error.startswith("medrobust: ")
