"""An audit of a classifier of which only answers can be had."""

from __future__ import annotations

import json
import sys
from unittest import mock

import numpy as np
import pytest

import medrobust as mr
from medrobust.cli import main
from medrobust.experiments import blackbox

CODE = """
import numpy as np

def label(images):
    return np.where(images.mean((1, 2, 3)) > 0.5, "bright", "dark")

def score(images):
    mean = images.mean((1, 2, 3))
    return np.stack([20 * (0.5 - mean), 20 * (mean - 0.5)], 1)

def sides(images):
    return np.stack([half.mean((1, 2, 3)) for half in (images[..., :4], images[..., 4:])], 1)

def found(images):
    return (sides(images) > 0.5).astype(int)

def chances(images):
    return 1 / (1 + np.exp(-20 * (sides(images) - 0.5)))
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with images of two kinds of brightness, and a module that tells them apart."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(blackbox, "DECISIONS", (15, 30))
    (tmp_path / "only_answers.py").write_text(CODE)
    labels = np.arange(24) % 2
    noise = np.random.default_rng(0).integers(-60, 60, (24, 8, 8))
    images = (np.where(labels, 140, 110)[:, None, None] + noise).astype(np.uint8)
    arrays = {
        f"{part}_{kind}": a
        for part in ("train", "val", "test")
        for kind, a in (("images", images), ("labels", labels[:, None]))
    }
    np.savez(tmp_path / "two.npz", **arrays)
    return tmp_path


def run(*words):
    with mock.patch.object(sys, "argv", ["medrobust", *map(str, words)]), pytest.raises(SystemExit) as left:
        main()
    return left.value.code or 0


def audit(home, function):
    data = (
        "--data",
        "medmnist:two.npz",
        "--classes",
        "dark,bright",
        "--map",
        "class 0=dark,class 1=bright",
        "--limit",
        "6",
    )
    how = ("--model", f"only_answers:{function}", "--no-train", "--eps", "4/255,32/255", "--out", home / function)
    assert run("audit", *data, *how) == 0
    return json.loads((home / function / "results.json").read_text())


@pytest.mark.filterwarnings("ignore")
def test_labels_alone_give_numbers(home, capsys):
    told = audit(home, "label")
    by = {(r["metric"], r["attack"], r.get("queries")): r for r in told["rows"] if r["kind"] == "black box"}
    for metric, attack in (("median_linf", "rays"), ("median_l2", "cgba")):
        few, many = (by[metric, attack, count]["value"] for count in (15, 30))
        assert 0 < many <= few
    assert by["success_at", "rays", 30]["n"] > 0
    held = {r["eps"]: r["value"] for r in told["rows"] if r["metric"] == "accuracy" and r["attack"] == "rays"}
    assert held[32 / 255] == 0  # the brightness of all pixels moves by more than what tells the classes apart
    assert not any(r["attack"] in ("fgsm", "pgd", "auto") for r in told["rows"])
    said = capsys.readouterr().err
    assert "answers with labels, without gradients: attacked with rays; left out" in said
    page = (home / "label" / "report.html").read_text()
    assert "told only its decision" in page
    assert "Nothing but its decisions could be had" in page
    assert "white box" not in page
    assert "look inside the model" not in page
    assert "From decisions alone, RayS needs a change of" in page


def test_what_needs_the_network_says_so(home, capsys):
    words = ("--data", "medmnist:two.npz", "--model", "only_answers:score", "--out", home / "d")
    assert run("detect", *words) == 2
    assert "medrobust detect needs gradients or layers" in capsys.readouterr().err
    assert run("attack", *words[:4], "--attacks", "pgd") == 2
    assert "pgd follows gradients, and only_answers:score only answers" in capsys.readouterr().err


def test_the_ensemble_of_a_black_box_has_no_gradient_attack(home):
    from only_answers import label, score

    images = mr.data.load("medmnist:two.npz").tensors()[0]
    for answer, members in ((label, {4}), (score, {3, 4})):
        clf = mr.Classifier(mr.models.BlackBoxModel(answer, ("dark", "bright")), ("dark", "bright"))
        with pytest.warns(UserWarning, match="Only answers"):
            goal = mr.Untargeted(clf.predict(images))
        done = mr.attacks.run(mr.attacks.Auto(queries=40), clf, images, goal, mr.Linf(0.3))
        assert set(done.by[done.reached].tolist()) <= members
        assert (done.gradients == 0).all()


@pytest.mark.filterwarnings("ignore")
def test_an_end_point_is_audited_and_asked_about_no_image_twice(home, capsys, monkeypatch):
    asked: list[int] = []

    def answered(self, images):
        from only_answers import label

        asked.append(len(images))
        return label(images)

    monkeypatch.setattr(mr.models.HttpEndpoint, "__call__", answered)
    data = ("--data", "medmnist:two.npz", "--classes", "dark,bright", "--map", "class 0=dark,class 1=bright")
    words = (*data, "--model", "http://127.0.0.1:9/predict", "--limit", "2", "--eps", "32/255", "--out", home / "url")
    few = ("--attacks", "rays:queries=20")
    assert run("audit", *words, *few, "--max-queries", "60") == 2
    assert "--max-queries allows 60" in capsys.readouterr().err
    assert sum(asked) <= 60
    assert run("audit", *words, *few) == 0
    whole = sum(asked)
    assert run("audit", *words, *few) == 0
    assert sum(asked) == whole
    told = json.loads((home / "url" / "results.json").read_text())
    assert any(r["metric"] == "median_l2" for r in told["rows"])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("function", "attack"), [("found", "rays:queries=150"), ("chances", "square:queries=60")])
def test_findings_of_a_black_box_are_hidden_and_invented(home, function, attack):
    rng, present = np.random.default_rng(1), np.arange(24)[:, None] // (1, 2) % 2
    bright = np.repeat(np.where(present, 140, 110), 4, axis=1)[:, None, :]
    images = (bright + rng.integers(-60, 60, (24, 8, 8))).astype(np.uint8)
    parts = ("train", "val", "test")
    np.savez(
        home / "halves.npz",
        **{f"{part}_images": images for part in parts},
        **{f"{part}_labels": present.astype(np.uint8) for part in parts},
    )
    words = ("--data", "medmnist:halves.npz", "--model", f"only_answers:{function}", "--no-train", "--limit", "6")
    how = ("--attacks", attack, "--eps", "4/255,32/255", "--out", home / "out")
    assert run("audit", *words, *how, *(("--outputs", "probabilities") if function == "chances" else ())) == 0
    told = json.loads((home / "out" / "results.json").read_text())
    for goal in ("hide", "invent"):
        # all pixels of a half moved by 32/255 change what is told of it, and of it alone
        rates = {
            (r["class_name"], r.get("alone")): r["value"]
            for r in told["rows"]
            if r["metric"] == "success" and r.get("goal") == goal and r["kind"] == "finding" and r["eps"] > 0.1
        }
        assert len(rates) == 4
        assert all(value == 1 for value in rates.values() if function == "found"), rates
        assert np.mean(list(rates.values())) > 0.3
    scores = {r["metric"] for r in told["rows"] if r["kind"] == "clean"} & {"auroc", "ece", "brier"}
    assert scores == (set() if function == "found" else {"auroc", "ece", "brier"})
    page = (home / "out" / "report.html").read_text()
    assert ("Not measured: AUROC, calibration, Brier score (the classifier answers with labels" in page) == (not scores)
