"""Every command that takes --data takes --patient and --fit, and prints what reading the images dropped or changed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from medrobust import private_names
from medrobust.cli import COMMANDS, app
from medrobust.cli.bars import Bars
from medrobust.errors import InputError
from tests.data_files import cohort, write_table

WITH_DATA = [c.__name__.replace("_", "-") for c in COMMANDS if "images" in c.__annotations__]


def run(*arguments: str) -> str:
    """What the command prints, stdout and stderr together."""
    done = CliRunner().invoke(app, list(arguments), standalone_mode=False)
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture
def study(tmp_path: Path) -> str:
    """40 images of 20 x 24 pixels in two classes; a patient id, one blank label, one damaged file."""
    rows = []
    for i in range(40):
        pixels = np.random.default_rng(i).integers(0, 90, (24, 20), np.uint8) + np.uint8(100 * (i % 2))
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        rows.append({"file": f"{i}.png", "label": ("ill", "well")[i % 2], "Patient ID": f"p{i // 2 % 12}"})
    rows[0]["label"] = "NA"
    (tmp_path / "1.png").write_bytes(b"oops")
    rows[2]["Patient ID"] = "unknown"
    return f"csv:{write_table(tmp_path, rows)}"


def test_every_command_that_takes_data_takes_the_patients_and_the_fit() -> None:
    assert len(WITH_DATA) == 13
    for name in WITH_DATA:
        text = run(name, "--help")
        assert "--patient" in text, name
        assert "--fit" in text, name


def test_names_finds_a_patient_of_any_column(tmp_path: Path) -> None:
    whose = [f"Schmidt-{i // 2}" for i in range(12)]
    table, code = cohort(tmp_path, n=12, reader=whose), private_names.code("Schmidt-3", "patient")
    assert "Schmidt-3" in run("names", code, "--data", f"csv:{table}", "--patient", "reader")
    with pytest.raises(InputError, match=f"{code} is the code of no image or patient"):
        run("names", code, "--data", f"csv:{table}")


def test_what_is_dropped_or_changed_is_printed_and_the_fit_goes_with_the_model(study: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    common = ("--data", study, "--size", "16")
    text = run("train", "--out", str(model), *common, "--model", "small_cnn:width=4", "--epochs", "1", "--fit", "pad")
    for line in (
        "note: 2 of 40 images were left out (1: it cannot be read; 1: it has no label).",
        "note: Left out: 0.png: it has no label.",
        "note: Left out: 1.png: not an image that can be read",
        "note: Patients were read from the column 'Patient ID'.",
        "note: There are 12 patients in 38 images; 1 images have no patient and count as independent.",
        "note: 38 of 38 images are not square and were padded with black to a square (fit pad, not stretch or crop).",
    ):
        assert line in text, line
    assert json.loads((model / "model.json").read_text())["provenance"]["data"]["fit"] == "pad"
    attacked = ("attack", "--model", str(model), "--data", study, "--eps", "1/255", "--attacks", "fgsm", "--limit", "4")
    assert "padded with black" in run(*attacked)  # as the model was trained
    with pytest.raises(InputError, match="trained on images made square by --fit pad, these are by --fit crop"):
        run(*attacked, "--fit", "crop")
    with pytest.raises(InputError, match=r"no column 'doctor' for the patients"):
        run(*attacked, "--patient", "doctor")
    assert "No column was used as patients" in run(*attacked, "--patient", "none")


def test_a_note_is_printed_once_and_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars() as bars:
        for _ in range(2):
            bars.note("[/nope] \x1b[2J 3 images")
    assert capsys.readouterr().err == "note: [/nope] \\x1b[2J 3 images\n"
