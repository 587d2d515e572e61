"""An audit of the user's own data: no name of an image, a patient or a file in anything that is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

from medrobust import private_names, report
from medrobust.cli import app
from medrobust.experiments import AuditSpec, ask, audit
from tests.data_files import cohort

N = 48


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hospital") / "oncology"
    made = cohort(folder, n=N, patient=[f"Schmidt-{i // 2}" for i in range(N)])
    (folder / "003.png").write_bytes(b"cut")
    return made


@pytest.fixture(scope="module")
def finished(table, tmp_path_factory) -> Path:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(private_names.VARIABLE, "a salt of the tests")
        folder = tmp_path_factory.mktemp("runs") / "run"
        audit(spec(table), folder, device="cpu")
        report.write(folder)
    return folder


def spec(table: Path) -> AuditSpec:
    asked = ask(
        data=f"csv:{table}",
        model="small_cnn:width=4",
        size=16,
        epochs=1,
        attacks=("fgsm",),
        eps=(8 / 255, 64 / 255),
        auto="",
        detect=False,
    )
    return asked.model_copy(update={"limit": 12})


def holding(folder: Path, word: str) -> list[str]:
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and word.encode() in p.read_bytes()]


@pytest.mark.parametrize("word", ["Schmidt", "oncology", "labels.csv", ".png", "hospital"])
def test_nothing_private_is_in_a_run_folder(finished, word):
    assert holding(finished, word) == []


def test_images_and_patients_keep_their_identity(finished):
    results = json.loads((finished / "results.json").read_text())
    examples = results["examples"]
    assert examples
    images = {private_control(f"{i:03d}.png"): f"Schmidt-{i // 2}" for i in range(N)}
    for e in examples:
        assert e["patient"] == private_control(images[e["id"]], "patient")
    (left_out,) = results["conditions"]["left_out"]
    assert left_out["file"] == private_control("003.png")


def test_a_run_says_which_images_it_is_about_and_whose_they_are(finished):
    images = {private_control(f"{i:03d}.png"): i for i in range(N)}
    tested = [images[name] for name in json.loads((finished / "results.json").read_text())["conditions"]["test_images"]]
    arrays = load_file(finished / "figures.safetensors")
    same_patient = np.equal.outer(arrays["test_patients"], arrays["test_patients"])
    assert np.array_equal(same_patient, np.equal.outer(np.array(tested) // 2, np.array(tested) // 2))
    assert len(arrays["test_content"]) == len(tested)
    assert np.array_equal(arrays["test_labels"][arrays["attacked"]], arrays["labels"])
    assert np.array_equal(arrays["test_prediction"][arrays["attacked"]], arrays["clean_prediction"])


def private_control(name: str, kind: str = "image") -> str:
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(private_names.VARIABLE, "a salt of the tests")
        return private_names.code(name, kind)


def test_names_are_kept_where_that_is_asked_for_and_nothing_is_computed_again(finished, table, monkeypatch):
    monkeypatch.setenv(private_names.VARIABLE, "a salt of the tests")
    hidden = json.loads((finished / "results.json").read_text())
    cells = {p: p.stat().st_mtime_ns for p in (finished / "cells").rglob("*")}
    assert "oncology" not in (finished / "model/model.json").read_text()
    kept = audit(spec(table), finished, device="cpu", keep_names=True)
    assert '"oncology/labels.csv"' in (finished / "model/model.json").read_text()
    assert {p: p.stat().st_mtime_ns for p in (finished / "cells").rglob("*")} == cells
    assert kept["conditions"]["data"] == "oncology/labels.csv"
    assert kept["conditions"]["left_out"][0]["file"] == "003.png"
    assert all(e["id"].endswith(".png") and e["patient"].startswith("Schmidt-") for e in kept["examples"])
    assert all(name.endswith(".png") for name in kept["conditions"]["test_images"])
    assert kept["rows"][0]["value"] == hidden["rows"][0]["value"]
    again = audit(spec(table), finished, device="cpu")
    assert again["examples"] == hidden["examples"]


def test_images_are_left_out_where_that_is_asked_for_and_nothing_is_computed_again(finished, table, monkeypatch):
    monkeypatch.setenv(private_names.VARIABLE, "a salt of the tests")
    shown, before = (finished / "report.html").read_text(), json.loads((finished / "results.json").read_text())
    cells = {p: p.stat().st_mtime_ns for p in (finished / "cells").rglob("*")}
    after = audit(spec(table), finished, device="cpu", pictures=False)
    report.write(finished)
    hidden, arrays = (finished / "report.html").read_text(), load_file(finished / "figures.safetensors")
    assert "data:image/png" in shown
    assert "data:image/png" not in hidden
    assert "left out of this report" in hidden
    assert not [name for name, values in arrays.items() if name != "universal.delta" and values.shape[-2:] == (16, 16)]
    assert after["rows"] == before["rows"]
    assert {p: p.stat().st_mtime_ns for p in (finished / "cells").rglob("*")} == cells


STUDY = '''"""A cell that fails with all that is private in its message."""
from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Node, Part, Study

def broken(work):
    raise RuntimeError(f"no luck with {work.data.ids[1]} of {work.data.patients[1]} in TABLE")

def study(size):
    images = Data("images", "csv:{data}/labels.csv", size=16)
    clean = catalogue.clean(Model("small", images, "small_cnn:width=4", {"epochs": 1}))
    return Study("Private", "here", [Part("p", "P", [clean, Node("private:broken", {}, images)])])
'''


@pytest.mark.parametrize("keep", [False, True])
def test_a_study_writes_names_only_where_that_is_asked_for(keep, table, tmp_path, monkeypatch):
    monkeypatch.setenv(private_names.VARIABLE, "a salt of the tests")
    (tmp_path / "private.py").write_text(STUDY.replace("TABLE", str(table)))
    asked = ["study", "run", tmp_path / "private.py", "--data", table.parent, "--out", tmp_path / "run"]
    assert CliRunner().invoke(app, [*map(str, asked), *(["--keep-names"] if keep else [])]).exit_code == 1
    written = {
        word for word in ("Schmidt", "oncology", "labels.csv", ".png", "hospital") if holding(tmp_path / "run", word)
    }
    if keep:
        assert {"Schmidt", "oncology", ".png"} <= written
        return
    assert written <= {"labels.csv"}  # the study file is quoted, and names its table
    (failed,) = (json.loads(p.read_text()) for p in (tmp_path / "run/failed").iterdir())
    assert private_control("001.png") in failed["error"]
    assert 'File "private.py", line 6, in broken' in failed["trace"]
