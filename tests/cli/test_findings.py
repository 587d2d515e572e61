"""Several findings an image on the command line: a table with unknown ones, thresholds by a rule, an attack."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medrobust import Classifier, data, training
from tests.cli.test_main import run
from tests.data_files import write_table

TRAIN = ("--model", "small_cnn:width=8", "--epochs", "1", "--device", "cpu")
FINDINGS = ("--findings", "effusion,nodule")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Images of the phantom with two of its findings, a tenth unknown, two images a patient."""
    folder, images = tmp_path_factory.mktemp("findings"), data.load("phantom:chest-findings@32:n=72")
    unknown, rows = np.random.default_rng(0).random((72, 2)) < 0.1, []
    for i, pixels in enumerate(images.images(range(72)).numpy()[:, 0]):
        Image.fromarray((pixels * 255).round().astype(np.uint8)).save(folder / f"{i}.png")
        values = ["" if hidden else str(images.labels[i, k]) for hidden, k in zip(unknown[i], (2, 3), strict=True)]
        rows.append({"file": f"{i}.png", "patient": f"p{i // 2}", "effusion": values[0], "nodule": values[1]})
    return f"csv:{write_table(folder, rows)}"


def documented() -> list[str]:
    """The command of the guide that trains on findings."""
    page = (Path(__file__).parents[2] / "docs/add-a-model.md").read_text()
    return shlex.split(page.partition("picks the epoch:\n\n```sh\n")[2].splitlines()[0])[1:]


def test_a_table_of_findings_is_trained_on_and_attacked(table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(Path(table.removeprefix("csv:")).parent)
    assert run(*documented(), *TRAIN, "--out", tmp_path) == 0
    said = capsys.readouterr()
    assert "findings of images are unknown" in said.err
    assert "by the rule youden" in said.err
    assert "specificity" in said.out
    card = json.loads((tmp_path / "model.json").read_text())
    assert card["head"] == "multilabel"
    assert Classifier.load(tmp_path).threshold == tuple(card["threshold"])
    attack = ("--attacks", "fgsm", "--eps", "1/255", "--limit", "6", "--device", "cpu")
    options = (*FINDINGS, "--threshold", "nodule=0.4")
    assert run("attack", "--model", tmp_path, "--data", table, *options, *attack) == 0
    assert "no attack" in capsys.readouterr().out


def test_defend_trains_on_findings_and_search_says_why_it_does_not(tmp_path, capsys):
    images = "phantom:chest-findings@16:n=60"
    training.fit(data.load(images), "small_cnn:width=4", epochs=1, device="cpu").save(tmp_path / "model")
    few = ("--rounds", "1", "--epochs", "1", "--perturbations", "1", "--limit", "8", "--method", "sgd:passes=1")
    words = ("--model", tmp_path / "model", "--data", images, "--target", "hide:effusion", "--device", "cpu")
    assert run("defend", *words, *few, "--out", tmp_path / "hard") == 0
    assert "all right" in capsys.readouterr().out
    page = (tmp_path / "hard" / "report.html").read_text()
    assert "All findings right, untouched" in page
    assert "the answer “no effusion”" in page
    assert "tab:defence-findings" in (tmp_path / "hard" / "tables.tex").read_text()
    assert run("search", "--data", images, "--out", tmp_path / "search") == 2
    assert "a search fits one last layer for classes that exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*FINDINGS, "--head", "softmax"), "several findings an image, and head 'softmax'"),
        (("--label", "nodule", "--head", "multilabel"), "one class an image, and head 'multilabel'"),
        ((*FINDINGS, "--threshold-rule", "best"), "youden, f1"),
        (("--findings", "effusion,hernia"), "no column 'hernia'"),
    ],
)
def test_what_does_not_fit_is_one_line(table, tmp_path, capsys, options, said):
    assert run("train", "--data", table, *options, *TRAIN, "--out", tmp_path / "x") == 2
    assert said in capsys.readouterr().err
