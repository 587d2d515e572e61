"""Labels go by name: whatever the order of a network's outputs, and whatever the data calls its classes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import medrobust as mr
from medrobust import training
from medrobust.attacks import Transfer
from medrobust.experiments.output_order import outputs_in_order
from medrobust.images import renumbered
from tests.commands import run

NETWORK = """
import torch

class Brightness(torch.nn.Module):
    # output 0 is high for bright images
    def forward(self, x):
        z = 20 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([z, -z], 1)

def bright_first():
    return Brightness()
"""
FAST = (
    "--attacks",
    "fgsm",
    "--eps",
    "0.5/255,1/255",
    "--auto",
    "none",
    "--no-universal",
    "--no-detect",
    "--no-explain",
    "--no-stored",
    "--device",
    "cpu",
)


class Brightness(torch.nn.Module):
    """Output 0 is high for bright images."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = 20 * (x.mean((1, 2, 3)) - 0.5)
        return torch.stack([z, -z], 1)


def table(folder: Path, names: tuple[str, ...] = ("normal", "pneumonia"), n: int = 24) -> Path:
    """Dark images of the first class and bright ones of the second; of a third, if named, grey ones."""
    rng = np.random.default_rng(0)
    lines = ["file,label"]
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        k = i % len(names)
        pixels = rng.integers(0, 40, (16, 16)) + (60, 170, 128)[k]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{names[k]}")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder / "labels.csv"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "brightness_net.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "brightness_net", raising=False)
    return "brightness_net:bright_first"


def clean(folder: Path) -> dict[str, float]:
    rows = json.loads((folder / "results.json").read_text())["rows"]
    """By metric; those of a class by metric and class."""
    mine = [r for r in rows if r["kind"] == "clean"]
    return {(r["metric"], r["class_name"]) if "class_name" in r else r["metric"]: r["value"] for r in mine}


def test_outputs_in_another_order_than_the_alphabet(tmp_path, own, capsys):
    data, out = table(tmp_path / "data"), tmp_path / "out"
    assert (
        run("audit", "--data", f"csv:{data}", "--model", own, "--classes", "pneumonia,normal", "--out", out, *FAST) == 0
    )
    numbers = clean(out)
    assert numbers["accuracy"] == numbers["sensitivity", "pneumonia"] == numbers["auroc", "pneumonia"] == 1
    said = capsys.readouterr().out
    assert "assumed" not in said
    assert "SWAPPED" not in said
    told = json.loads((out / "results.json").read_text())["conditions"]
    assert told["classes"] == ["pneumonia", "normal"]
    assert told["disease_classes"] == [0]


def test_without_an_order_it_is_assumed_said_and_asked_where_it_is_wrong(tmp_path, own, capsys):
    data, out = table(tmp_path / "data"), tmp_path / "out"
    assert run("audit", "--data", f"csv:{data}", "--model", own, "--out", out, *FAST) == 0
    assert clean(out)["accuracy"] == 0
    said = capsys.readouterr().out
    assert said.splitlines()[0].startswith("ARE THE NETWORK'S OUTPUTS SWAPPED? AUROC 0.00")
    assert "assumed to be in this order: normal, pneumonia" in said
    found = json.loads((out / "results.json").read_text())
    (check,) = [c for c in found["checks"] if c["name"] == "outputs are in the order of the classes"]
    assert check["passed"] is False
    page = (out / "report.html").read_text()
    assert "Are the outputs of this classifier swapped?" in page
    assert "assumed to be in this order: normal, pneumonia" in page


@pytest.mark.slow  # three audits
def test_names_are_mapped_and_unknown_classes_are_one_clear_line(tmp_path, own, capsys):
    data = table(tmp_path / "data", ("neg", "pos"))
    known = ("--model", own, "--classes", "pneumonia,normal", *FAST)
    out = tmp_path / "out"
    mapped = ("audit", "--data", f"csv:{data}", *known, "--out", out, "--map", "neg=normal,pos=pneumonia")
    assert run(*mapped) == 0
    assert clean(out)["sensitivity", "pneumonia"] == 1
    assert "neg to normal, pos to pneumonia" in capsys.readouterr().out
    three = table(tmp_path / "three", ("normal", "pneumonia", "covid"))
    other = tmp_path / "other"
    assert run("audit", "--data", f"csv:{three}", *known, "--out", other) == 2
    said = capsys.readouterr().err
    assert "8 images of class 'covid', which the classifier does not know" in said
    assert [line for line in said.splitlines() if line.startswith("medrobust:")] == said.splitlines()[-1:]
    assert run("audit", "--data", f"csv:{three}", *known, "--out", tmp_path / "fewer", "--leave-out", "covid") == 0
    assert "8 images of covid were left out" in capsys.readouterr().out
    assert run("audit", "--data", f"csv:{three}", *known, "--out", tmp_path / "unknown", "--map", "flu=normal") == 2
    assert "no class 'flu'" in capsys.readouterr().err


def test_a_class_that_the_test_set_lacks_is_said_and_the_others_are_audited(tmp_path, own, capsys):
    data, out = table(tmp_path / "data", ("pneumonia", "normal")), tmp_path / "out"
    classes = ("--classes", "normal,tumour,pneumonia")
    (tmp_path / "brightness_net.py").write_text(
        NETWORK.replace("torch.stack([z, -z], 1)", "torch.stack([z, 0 * z - 9, -z], 1)")
    )
    assert run("audit", "--data", f"csv:{data}", "--model", own, *classes, "--out", out, *FAST) == 0
    numbers = clean(out)
    assert numbers["accuracy"] == 1
    assert numbers["sensitivity", "tumour"] is None
    assert "tumour, of which there is no test image" in capsys.readouterr().out
    assert "tumour, of which there is no test image" in (out / "report.html").read_text()


def test_the_quick_curve_asks_too(tmp_path, capsys):
    data = table(tmp_path / "data", n=60)
    net = training.fit(mr.data.load(f"csv:{data}"), "small_cnn:width=4", epochs=3, lr=0.02, augment=False)
    turned = mr.Classifier(net.net, net.classes[::-1], mean=net.mean, std=net.std, provenance=net.provenance, size=16)
    turned.save(tmp_path / "model")
    assert (
        run("attack", "--model", tmp_path / "model", "--data", f"csv:{data}", "--eps", "1/255", "--device", "cpu") == 0
    )
    assert capsys.readouterr().out.startswith("ARE THE NETWORK'S OUTPUTS SWAPPED?")


def test_a_data_set_in_the_order_of_a_classifier(tmp_path):
    data = mr.data.load(f"csv:{table(tmp_path / 'data')}")
    turned = data.for_classes(("pneumonia", "normal"))
    assert [turned.classes[k] for k in turned.labels] == [data.classes[k] for k in data.labels]
    assert turned.digest() == data.digest()
    assert turned.sample(7, 0).ids == data.sample(7, 0).ids
    wide = data.for_classes(("a", "pneumonia", "normal"))
    assert sorted(set(wide.labels.tolist())) == [1, 2]
    assert data.for_classes(data.classes) is data
    clf = mr.Classifier(Brightness(), ("pneumonia", "normal"))
    probability, labels = training.evaluate(clf, data)
    assert (probability.argmax(1) == labels).all()
    merged = data.renamed({"normal": "any", "pneumonia": "any"})
    assert merged.classes == ("any",)


def test_transfer_goes_by_name(tmp_path):
    images, labels = mr.data.load(f"csv:{table(tmp_path / 'data')}").tensors()
    clf = mr.Classifier(Brightness(), ("pneumonia", "normal"))
    same = mr.Classifier(Brightness(), ("pneumonia", "normal"))
    turned = Turned()
    goal = mr.Untargeted(1 - labels)  # in the classifier's order
    for surrogate in (same, mr.Classifier(turned, ("normal", "pneumonia"))):
        adv = Transfer(surrogate)(clf, images, goal, mr.Linf(0.4))
        assert mr.judge(clf, images, adv, goal, mr.Linf(0.4)).reached.all()


class Turned(Brightness):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).flip(1)


def test_renumbered_labels_mean_the_same_names():
    assert renumbered(torch.tensor([0, 1, 1]), ("a", "b"), ("b", "c", "a")).tolist() == [2, 0, 0]
    assert renumbered(torch.tensor([[1, 0]]), ("a", "b"), ("b", "c", "a")).tolist() == [
        [0, -1, 1]
    ]  # nothing is known of c
    with pytest.raises(mr.InputError, match="no class 'b'"):
        renumbered(torch.tensor([0]), ("a", "b"), ("a", "c"))


@pytest.mark.parametrize("k", [2, 3, 7])
def test_chance_and_a_constant_answer_are_not_taken_for_swapped_outputs(k):
    names = tuple(f"c{i}" for i in range(k))
    false = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        labels = np.repeat(np.arange(k), 6)
        probability = rng.dirichlet(np.ones(k), labels.size)
        false += outputs_in_order(probability, labels, probability.argmax(1), names).passed is False
    assert false <= 4  # an interval of 95 % lies beside the truth once in twenty
    constant = np.tile(np.eye(k)[0], (labels.size, 1))
    assert outputs_in_order(constant, labels, constant.argmax(1), names).passed


def test_three_outputs_in_a_cycle_are_noticed():
    labels = np.repeat(np.arange(3), 20)
    decisions = np.where(np.arange(60) % 7 == 0, labels, (labels + 1) % 3)
    check = outputs_in_order(np.eye(3)[decisions], labels, decisions, ("a", "b", "c"))
    assert check.passed is False
    assert "read as c, a, b" in check.detail
