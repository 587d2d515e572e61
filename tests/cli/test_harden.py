"""`medrobust harden`, from the command line to its page."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

import medrobust as mr
from medrobust import training
from medrobust.report.hardening_words import epochs
from medrobust.report.schema import HardeningInfo
from medrobust.results import Row, among, find
from tests.cli.test_main import run

DATA = "phantom:chest@16:n=300"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    data = mr.data.load(DATA)
    training.fit(data, "small_cnn:width=8", epochs=12, lr=0.01, augment=False, device="cpu").save(folder)
    return folder


def test_before_and_after_stand_beside_each_other(model, tmp_path, capsys):
    out = tmp_path / "run"
    how = ("--model", model, "--data", DATA, "--eps", "4/255", "--epochs", 6, "--lr", 0.01, "--limit", 20)
    assert run("harden", *how, "--out", out) == 0
    printed = capsys.readouterr().out
    results = json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)
    rows = [Row.read(r) for r in results["rows"]]
    for size in (2 / 255, 4 / 255, 8 / 255):
        both = [find(rows, metric="accuracy_attacked", eps=size, round=r) for r in (0, 1)]
        assert all(r.n == 20 and r.low <= r.value <= r.high for r in both)
    at = [find(rows, metric="accuracy_attacked", eps=4 / 255, round=r).value for r in (0, 1)]
    assert at[1] > at[0]
    clean = [find(rows, metric="accuracy", kind="defence", round=r).value for r in (0, 1)]
    assert find(rows, metric="accuracy_change").value == pytest.approx(clean[1] - clean[0])
    recall = list(among(rows, metric="recall", round=1))
    assert len(recall) == 2
    # the numbers are those of the classifier that is saved
    hardened, test = mr.Classifier.load(out / "model"), mr.data.load(DATA).split("test")
    images, labels = test.tensors()
    assert float((hardened.predict(images) == labels).float().mean()) == pytest.approx(clean[1])
    info = results["conditions"]["hardening"]
    assert len(info["history"]) == 6
    assert info["epoch_kept"] == hardened.provenance["further"][-1]["epoch_kept"]
    page = (out / "report.html").read_text()
    assert 'id="hardening"' in page
    assert "PGD adversarial training" in page
    assert re.search(r"Under attack at 4/255, .*still read rightly", printed.replace("\n", " "))
    assert "medrobust compare runs/before runs/after" in page
    assert run("harden", *how, "--out", out) == 0  # a second time nothing is computed
    assert "0 of" not in capsys.readouterr().out.split("pieces of work")[0][-8:]
    assert json.loads((out / "results.json").read_text())["rows"] == results["rows"]


def test_findings_are_hardened_together(tmp_path, capsys):
    data = mr.data.load("phantom:chest-findings@16:n=120")
    training.fit(data, "small_cnn:width=4", epochs=2, device="cpu").save(tmp_path / "model")
    what = ("--model", tmp_path / "model", "--data", "phantom:chest-findings@16:n=120", "--limit", 6, "--epochs", 1)
    assert run("harden", *what, "--method", "trades:steps=2", "--out", tmp_path / "run") == 0
    assert "all findings right" in capsys.readouterr().out
    rows = [Row.read(r) for r in json.loads((tmp_path / "run" / "results.json").read_text())["rows"]]
    assert {r.get("class_name") for r in among(rows, metric="recall", round=1)} == set(data.classes)


@pytest.mark.parametrize(
    ("seconds", "minutes", "said"),
    [
        ([10, 10, 10], None, "Epoch 2 of 3 is kept: the best under attack on validation images."),
        ([40, 40], 2, "Epoch 2 of 2 is kept: the best under attack on validation images. 3 were planned; further ones"),
        ([50, 50], 2, "3 were planned; another would not have ended within 2 minutes."),
    ],
)
def test_why_there_were_fewer_epochs_is_said(seconds, minutes, said):
    history = [{"epoch": i + 1, "seconds": s} for i, s in enumerate(seconds)]
    facts = {"method": "pgd", "title": "PGD", "eps": 0.01, "sizes": [0.01], "epochs": 3, "epoch_kept": 2}
    assert said in epochs(HardeningInfo(**facts, minutes=minutes, history=history))


def test_images_that_are_trained_on_are_no_test_whoever_trained_the_classifier_before(tmp_path, capsys):
    """A folder without a split: all of it is a test, by commands that do not train, of a classifier from elsewhere."""
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(30):
            pixels = np.random.default_rng(i).normal(level, 20, (16, 16)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    spec = f"folder:{tmp_path / 'images'}"
    data = mr.data.load(spec)
    training.fit(data, "small_cnn:width=8", epochs=1, lr=0.01, augment=False, device="cpu").save(tmp_path / "model")
    how = ("--model", tmp_path / "model", "--data", spec, "--epochs", 1, "--limit", 4, "--seed", 1)
    assert run("harden", *how, "--out", tmp_path / "run") == 0
    assert "it may have seen test images before" in " ".join(capsys.readouterr().err.split())
    rows = [Row.read(r) for r in json.loads((tmp_path / "run" / "results.json").read_text())["rows"]]
    after = find(rows, metric="accuracy", kind="defence", round=1)
    assert after.n == len(mr.data.load(spec, seed=1).split("test")) < len(data) / 2
