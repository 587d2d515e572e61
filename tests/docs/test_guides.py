"""Each guide is tried as it is written."""

from __future__ import annotations

import json
import sys
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import medrobust as mr
from medrobust import data as data_room
from medrobust import detectors as detectors_room
from medrobust import report
from medrobust.cli import app
from medrobust.detectors import Detector
from medrobust.report import section
from tests import report_runs
from tests.docs.test_docs import blocks
from tests.nets import bumpy, grey

CLI = CliRunner()


def run_all(file: str, *numbers: int, **scope: Any) -> dict[str, Any]:
    """What the Python of a guide defines; numbers: which blocks, all by default."""
    codes = blocks(file)
    for number in numbers or range(len(codes)):
        exec(compile(codes[number], f"{file}, block {number + 1}", "exec"), scope)
    return scope


def test_the_detector_of_the_guide_fits_scores_and_is_found_by_name(monkeypatch, tmp_path):
    scope = run_all("docs/add-a-detector.md")
    assert scope["suspicion"].shape == (60,)
    kind = scope["NearestClean"]
    monkeypatch.setitem(detectors_room.DETECTORS, "nearest", kind)
    clf, clean = bumpy(), grey(40, 16, spread=0.2)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(4)).sign()
    attacked = (clean + 0.08 * noise).clamp(0, 1)
    for examples in (None, attacked):
        detector = kind().fit(clf, clean, examples)
        assert detector.score(attacked).mean() > detector.score(clean).mean()
        assert torch.equal(detector.score(clean)[7:8], detector.score(clean[7:8]))
    detector.save(tmp_path)
    assert torch.equal(Detector.load(tmp_path, clf).score(clean), detector.score(clean))


def test_the_experiment_of_the_guide_is_a_study_with_its_table(monkeypatch, tmp_path):
    (tmp_path / "mirrored.py").write_text(blocks("docs/add-an-experiment.md")[0])
    monkeypatch.chdir(tmp_path)
    done = CLI.invoke(app, ["study", "run", "mirrored.py", "--size", "smoke", "--out", "out"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = json.loads(Path("out/results.json").read_text())["rows"]
    assert [(row["metric"], row["n"], row["model"]) for row in rows] == [
        ("same answer, mirrored", 60, f"seed {seed}") for seed in range(2)
    ]
    assert all(0 <= row["low"] <= row["value"] <= row["high"] <= 1 for row in rows)
    assert "Mirrored images" in CLI.invoke(app, ["study", "show", "out"]).output
    sys.modules.pop("mirrored", None)


def test_the_data_source_of_the_guide_reads_its_folder(monkeypatch, tmp_path):
    kind = run_all("docs/add-a-data-source.md", 0)["open_npy"]
    monkeypatch.setitem(data_room.SOURCES, "npy", kind)
    with pytest.raises(mr.InputError, match=r"there is no .*images\.npy"):
        mr.data.load(f"npy:{tmp_path}")
    images = np.random.default_rng(0).integers(0, 256, (40, 16, 16), np.uint8)
    np.save(tmp_path / "images.npy", images)
    (tmp_path / "labels.txt").write_text("ill well " * 20)
    data = mr.data.load(f"npy:{tmp_path}")
    assert data.classes == ("ill", "well")
    pixels, labels = data.split("test").tensors()
    assert pixels.shape[1:] == (1, 16, 16)
    assert len(pixels) == len(labels) > 0
    assert {image.numpy().tobytes() for image in (pixels * 255).round().to(torch.uint8)} <= {
        i.tobytes() for i in images
    }
    (tmp_path / "labels.txt").write_text("ill")
    with pytest.raises(mr.InputError, match="40 images and 1 labels"):
        mr.data.load(f"npy:{tmp_path}")


def small(code: str) -> str:
    return code.replace('"phantom:chest"', '"phantom:chest@32:n=120"').replace("seed=0", "seed=0, epochs=1")


def test_the_models_of_the_guide_are_trained_saved_and_wrapped(monkeypatch, tmp_path):
    named, pretrained, network, trained, vendor, formats, answers, resized = blocks("docs/add-a-model.md")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    scope: dict[str, Any] = {}
    exec(small(named).replace("resnet18", "small_cnn"), scope)
    assert (tmp_path / "runs/chest/model/model.safetensors").is_file()
    assert 'pretrained="hub"' in pretrained  # a download: not tried here
    (tmp_path / "mynet.py").write_text(network)
    exec(small(trained), scope)
    assert scope["clf"].predict(torch.rand(2, 1, 32, 32)).shape == (2,)
    colour = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    scope["vendor"] = types.SimpleNamespace(load_model=lambda: colour)
    exec(vendor, scope)
    assert scope["clf"].classes == ("normal", "pneumonia")
    assert scope["clf"].predict(torch.rand(2, 3, 32, 32)).shape == (2,)
    assert "delivered" in formats  # tests/docs/test_formats.py
    (tmp_path / "answers.py").write_text(answers)
    net = mr.models.build("answers:predict", classes=2, channels=1)
    assert mr.models.BlackBoxModel(net.answer, ("dark", "bright"))(torch.ones(1, 1, 4, 4)).tolist() == [[-1, 1]]
    exec("import medrobust as mr\n" + resized, scope)
    assert scope["clf"].predict(torch.rand(2, 3, 300, 260)).shape == (2,)
    sys.modules.pop("mynet", None)


def test_the_section_of_the_guide_is_on_the_page_and_in_latex(monkeypatch, tmp_path):
    package = tmp_path / "own_sections"
    package.mkdir()
    text = (Path(__file__).parents[2] / "docs/add-a-report-section.md").read_text()
    (package / "__init__.py").touch()
    (package / "doubt.py").write_text(blocks("docs/add-a-report-section.md")[0])
    (package / "doubt.html").write_text(text.split("```html\n")[1].split("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    entry = EntryPoint("doubt", "own_sections.doubt", section.GROUP)
    monkeypatch.setattr(section.metadata, "entry_points", lambda group: [entry] if group == section.GROUP else [])
    folder = report_runs.make(tmp_path / "run", "few")
    report.write(folder)
    page = (folder / "report.html").read_text()
    assert '<a href="#doubt">' in page
    assert '<section id="doubt">' in page
    assert "numbers are inconclusive" in page
    assert "Rows of results.json by status." in (folder / "tables.tex").read_text()
