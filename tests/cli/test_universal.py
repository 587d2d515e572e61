"""`medrobust universal` and `medrobust defend`, from the command line to the files they leave."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import medrobust as mr
from medrobust import training
from medrobust.results import Row, find
from medrobust.universal import Universal
from tests.cli.test_main import one_line, run
from tests.results_files import numbers

DATA = "phantom:chest@32:n=120"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    training.fit(mr.data.load(DATA), "small_cnn", epochs=4, seed=0, device="cpu").save(folder)
    return folder


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    """A network of four classes with its table: per class everything has more than two rows."""
    folder = tmp_path_factory.mktemp("four")
    draw = np.random.default_rng(0)
    rows = ["file,label,split,patient"]
    for i in range(64):
        pixels = (draw.random((28, 28)) * 90).astype(np.uint8)
        pixels[7 * (i % 4) : 7 * (i % 4) + 7] += 120
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append(f"{i}.png,{'abcd'[i % 4]},{('train', 'train', 'val', 'test')[i // 4 % 4]},p{i // 8}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """A terminal in which no cell of a table is broken."""
    monkeypatch.setenv("COLUMNS", "200")


def results(folder) -> dict:
    return json.loads((folder / "results.json").read_text(), parse_constant=pytest.fail)  # no NaN: strict JSON


def read(told: dict) -> list[Row]:
    return [Row.read(r) for r in told["rows"]]


def row(told: dict, metric: str, **more: str) -> Row:
    """Of the perturbation itself, with exactly these further columns."""
    found = [r for r in read(told) if r.kind == "universal" and r.metric == metric and r.more == more]
    assert len(found) == 1
    return found[0]


def common(model, out, *more: str) -> tuple:
    return ("--data", DATA, "--out", out, "--device", "cpu", *more)


def test_a_perturbation_is_made_judged_and_kept(model, tmp_path, capsys):
    out = tmp_path / "out"
    assert (
        run(
            "universal",
            *common(model, out),
            "--model",
            model,
            "--zeta",
            "0.1",
            "--limit",
            "30",
            "--target",
            "pneumonia",
            "--method",
            "sgd:passes=3",
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert not (out / "unfinished.safetensors").exists()
    v, told = Universal.load(out / "v.safetensors"), results(out)
    data, clf = mr.data.load(DATA), mr.Classifier.load(model)
    test = data.split("test")
    images, labels = test.tensors()
    assert v.target == 1
    assert v.provenance["images"]["n"] == 30
    assert v.provenance["settings"]["passes"] == 3
    assert v.size <= mr.L2.relative(0.1, data.split("train")).eps + 1e-6
    after = clf.predict(v.apply(images))
    success = row(told, "targeted_success", target="pneumonia")
    assert success.value == pytest.approx(float((after == 1).float().mean()))
    assert success.attack == "sgd"
    before = row(told, "targeted_base", target="pneumonia")
    assert before.value == pytest.approx(float((clf.predict(images) == 1).float().mean()))
    accuracy = row(told, "accuracy_after", target="pneumonia")
    assert accuracy.value == pytest.approx(float((after == labels).float().mean()))
    assert accuracy.n == told["conditions"]["universal"]["n_judged"] == len(test)
    for k, name in enumerate(("normal", "pneumonia")):
        of_class = labels == k
        recall = row(told, "recall_after", target="pneumonia", class_name=name)
        assert recall.value == pytest.approx(float((after == labels)[of_class].float().mean()))
        decided = row(told, "decided_after", target="pneumonia", class_name=name)
        assert decided.value == pytest.approx(float((after == k).float().mean()))
    assert load_file(out / "figures.safetensors")["universal.confusion"].sum() == len(test)
    assert not {"attacks", "eps", "auto"} & set(told["conditions"]["config"])  # settings of other commands
    controls = told["conditions"]["universal"]["controls"]
    assert len(controls) == 3
    assert all(find(read(told), attack=c, metric="targeted_success", target="pneumonia") for c in controls)
    assert all(w in shown for w in ("random direction", "random signs", "Rs", "base rate", "pneumonia", "normal"))
    assert f"{100 * success.value:.1f} (" in shown
    with Image.open(out / "v.png") as picture:
        assert picture.size == (32, 32)
    assert "The change towards pneumonia, on" in (out / "report.html").read_text("utf-8")


@pytest.mark.parametrize("source", ["noise", "phantom:skin:n=40", None], ids=str)
def test_it_can_be_made_from_other_images(model, tmp_path, source, capsys):
    out = tmp_path / "out"
    extra = () if source is None else ("--source", source)
    assert (
        run(
            "universal",
            *common(model, out, *extra),
            "--model",
            model,
            "--eps",
            "16/255",
            "--norm",
            "linf",
            "--limit",
            "16",
            "--judged",
            "8",
            "--method",
            "sga:passes=1:balance=false",
        )
        == 0
    )
    v, info = Universal.load(out / "v.safetensors"), results(out)["conditions"]["universal"]
    assert float(v.delta.abs().max()) <= 16 / 255 + 1e-6
    assert v.ball == mr.Linf(16 / 255)
    assert v.provenance["settings"]["balance"] is False
    assert v.provenance["images"]["n"] == 16
    assert (info["n_made"], info["n_judged"]) == (16, 8)
    assert info["made_from"] == {None: "training images", "noise": "noise"}.get(source, f"images of {source}")
    assert "16/255 a pixel" in capsys.readouterr().out


def test_the_same_command_gives_the_same_bytes(model, tmp_path):
    for name in ("a", "b"):
        assert (
            run(
                "universal",
                *common(model, tmp_path / name),
                "--model",
                model,
                "--limit",
                "20",
                "--method",
                "sgd:passes=1",
            )
            == 0
        )
    for file in ("v.safetensors", "v.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    a, b = (numbers(tmp_path / name / "results.json") for name in ("a", "b"))
    assert a.pop("seconds").keys() == b.pop("seconds").keys()
    assert a == b


def test_four_classes_and_a_network_trained_on_the_way(seven, tmp_path, capsys):
    out = tmp_path / "out"
    command = (
        "universal",
        "--data",
        f"csv:{seven / 'labels.csv'}",
        "--model",
        "small_cnn",
        "--epochs",
        "2",
        "--limit",
        "16",
        "--method",
        "sgd:passes=1",
        "--device",
        "cpu",
        "--out",
        out,
    )
    assert run(*command) == 0
    assert load_file(out / "figures.safetensors")["universal.confusion"].shape == (1, 4, 4)
    assert (out / "model" / "model.json").is_file()
    capsys.readouterr()
    assert run(*command) == 0
    assert "training" not in capsys.readouterr().err  # the network of the first run is used


def test_nothing_that_is_written_names_the_files_it_was_made_from(model, seven, tmp_path):
    source = f"csv:{seven / 'labels.csv'}"
    rest = ("--model", model, "--source", source, "--vary", "--limit", "8", "--method", "sgd:passes=1")
    assert run("universal", *common(model, tmp_path / "out", *rest)) == 0
    assert str(seven) not in results(tmp_path / "out")["conditions"]["universal"]["made_from"]
    for path in (p for p in (tmp_path / "out").rglob("*") if p.is_file()):
        assert str(seven).encode() not in path.read_bytes(), path


def test_a_perturbation_that_stayed_zero_says_why(model, tmp_path, capsys):
    assert (
        run(
            "universal",
            *common(model, tmp_path),
            "--model",
            model,
            "--limit",
            "12",
            "--method",
            "sim:passes=1:step=1e-9",
        )
        == 0
    )
    told = results(tmp_path)
    shown = " ".join(capsys.readouterr().out.split())
    (goal,) = told["conditions"]["universal"]["goals"]
    assert goal["why"]
    assert f"inconclusive: {goal['why']}" in shown
    assert {r.status for r in read(told) if r.kind == "universal"} == {"inconclusive"}


@pytest.mark.parametrize("defence", ["retrain", "universal-training"])
@pytest.mark.slow  # trains a network with each defence
def test_a_classifier_is_hardened_and_saved(model, tmp_path, defence, capsys):
    out = tmp_path / "out"
    command = (
        "defend",
        "--model",
        model,
        *common(model, out),
        "--defence",
        defence,
        "--rounds",
        "1",
        "--epochs",
        "1",
        "--perturbations",
        "2",
        "--limit",
        "16",
        "--method",
        "sgd:passes=1",
        "--zeta",
        "0.1",
    )
    assert run(*command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    told = results(out)
    hard, images, labels = mr.Classifier.load(out / "model"), *mr.data.load(DATA).split("test").tensors()
    accuracy = float((hard.predict(images) == labels).float().mean())
    assert told["conditions"]["defence"]["rounds"] == [0, 1]
    after = find(read(told), kind="defence", metric="accuracy", round=1)
    assert after.value == pytest.approx(accuracy)
    assert after.n == len(images)
    pools = {(r.get("round"), r.get("pool")) for r in read(told) if r.metric == "fooling_rate"}
    assert pools == {(0, "fresh"), (0, "random"), *((1, pool) for pool in ("fresh", "old", "first", "random"))}
    assert told["conditions"]["defence"]["verdict"] in shown
    assert hard.digest() != mr.Classifier.load(model).digest()
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert run(*command) == 0
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    assert run(*command[:-1], "0.2") == 2  # another size is another defence
    assert "holds a defence with another eps" in capsys.readouterr().err
    # what is saved can be attacked and hardened as any other classifier
    assert (
        run("attack", "--model", out / "model", "--data", DATA, "--eps", "1/255", "--limit", "4", "--device", "cpu")
        == 0
    )


BAD = {
    "method": (("--method", "sgaa"), "method 'sgaa' is not known; choose from sim"),
    "method-option": (("--method", "sga:steps=3"), "method 'sga' takes passes"),
    "method-value": (("--method", "sga:passes=many"), "passes must be a whole number, got 'many'"),
    "method-switch": (("--method", "sga:balance=maybe"), "balance must be true or false"),
    "method-zero": (("--method", "sga:passes=0"), "at least 1"),
    "target": (("--target", "tumour"), "'tumour' is not a class; the data has normal, pneumonia"),
    "norm": (("--norm", "l1"), "--norm must be linf or l2"),
    "both-sizes": (("--zeta", "0.1", "--eps", "8/255"), "give one of the two"),
    "zeta": (("--zeta", "0"), "--zeta is a share"),
    "two-sizes": (("--eps", "1/255,2/255"), "--eps wants one size"),
    "grey-levels": (("--norm", "linf", "--eps", "8"), "more than the whole pixel range"),
    "limit": (("--limit", "-1"), "--limit must not be negative"),
    "data": (("--data", "csv:none.csv"), "there is no table none.csv"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("command", ["universal", "defend"])
def test_bad_input_is_one_line(command, name, model, tmp_path, capsys):
    arguments, said = BAD[name]
    assert run(command, "--model", model, *common(model, tmp_path / "out"), *arguments) == 2
    assert re.search(said, one_line(capsys.readouterr().err))
    assert not list((tmp_path / "out").glob("*.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("universal", "--source", "csv:none.csv", "--model", "MODEL"), "--source csv:none.csv: there is no table"),
        (("universal", "--model", "nowhere"), "nowhere"),
        (("defend", "--model", "nowhere"), "nowhere is not a folder"),
        (("defend", "--model", "MODEL", "--defence", "pray"), "choose retrain or universal-training"),
        (("defend", "--model", "MODEL", "--rounds", "0"), "at least 1"),
        (("defend", "--model", "MODEL", "--lr", "-1"), "lr must be"),
        (("defend",), "(?i)missing option '--model'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_to_one_of_them_is_one_line(arguments, said, model, tmp_path, capsys):
    arguments = [model if a == "MODEL" else a for a in arguments]
    assert run(*arguments, *common(model, tmp_path / "out")) == 2
    assert re.search(said, one_line(capsys.readouterr().err))


@pytest.mark.parametrize("command", ["universal", "defend"])
def test_they_have_help(command, capsys):
    assert run(command, "--help") == 0
    assert "--zeta" in capsys.readouterr().out


def test_one_thread(model):
    """The bytes above are compared between runs of one thread each, as the tests are run."""
    assert torch.get_num_threads() == 1
