"""What is found out about a network before anything else is asked, said and written by every command that judges it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medrobust import Classifier
from medrobust.cli import COMMANDS
from medrobust.cli.options import AS_JSON, GROUPS, expanded
from medrobust.inspection import COMPANY
from tests import door_nets
from tests.cli.test_data_options import run as printed
from tests.cli.test_main import run
from tests.data_files import write_table

QUESTION = "ARE THE NETWORK'S OUTPUTS SWAPPED? AUROC 0."
MORE = ("detect", "evade")
"""Commands that need more images."""
NAME = "outputs are in the order of the classes"
STUDY = """
from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Part, Study

def study(size):
    model = Model("bright", Data("csv", "csv:{data}/labels.csv", size=16), "tests.door_nets:NET")
    return Study("Door", "here", [Part("door", "Door", [catalogue.clean(model)])])
"""


def table(folder: Path, right: float, command: str = "") -> Path:
    """Dark images and bright ones, of which a share ``right`` is named as ``Bright`` reads them; with a split for
    commands that train, and more of them for detectors."""
    rng, rows = np.random.default_rng(0), []
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(320 if command in MORE else 100):
        bright = i % 2
        pixels = rng.integers(0, 20, (16, 16)) + (105, 130)[bright]
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        label = bright if i // 2 % 10 < 10 * right else 1 - bright
        rows.append({"file": f"{i}.png", "label": ("normal", "pneumonia")[label]})
        if command in ("universal", "defend", "harden"):
            rows[-1]["split"] = ("train", "test", "val", "test")[i // 2 % 4]
    return write_table(folder, rows)


def saved(name: str, folder: Path) -> Path:
    """That network of door_nets as medrobust saves it."""
    told = {"architecture": f"tests.door_nets:{name}"}
    clf = Classifier(getattr(door_nets, name)(), ("normal", "pneumonia"), size=16, provenance=told)
    return clf.save(folder)


EPS = ("--eps", "16/255")
Line = Callable[[Path, str], tuple[object, ...]]
"""(folder with images, name of a network in door_nets) -> the arguments."""


def common(folder: Path) -> tuple[object, ...]:
    return ("--data", f"csv:{folder / 'labels.csv'}", "--device", "cpu", "--out", folder / "out")


def by_name(command: str, *options: str) -> Line:
    return lambda f, net: (command, "--model", f"tests.door_nets:{net}", *common(f), *options)


JUDGING: dict[str, tuple[Line, str]] = {
    "audit": (
        by_name(
            "audit",
            *EPS,
            "--attacks",
            "fgsm",
            "--auto",
            "none",
            "--no-universal",
            "--no-detect",
            "--no-explain",
            "--no-stored",
            "--limit",
            "12",
        ),
        "results.json",
    ),
    "attack": (lambda f, net: ("attack", "--model", f"tests.door_nets:{net}", *common(f)[:4], *EPS), ""),
    "detect": (
        by_name("detect", *EPS, "--detectors", "softmax", "--corrupted", "0", "--limit", "30", "--protocol", "clean"),
        "results.json",
    ),
    "evade": (
        by_name("evade", *EPS, "--detectors", "softmax", "--evasions", "matching", "--attacked", "4", "--limit", "30"),
        "results.json",
    ),
    "explain": (
        by_name(
            "explain", *EPS, "--measures", "margin", "--limit", "12", "--landscapes", "1", "--attacks", "pgd:steps=3"
        ),
        "results.json",
    ),
    "universal": (by_name("universal", "--method", "sgd:passes=1"), "results.json"),
    "certify": (
        by_name("certify", *EPS, "--bounds", "none", "--smoothing", "0.1", "--draws", "20", "--limit", "12"),
        "results.json",
    ),
    "defend": (
        lambda f, net: (
            "defend",
            "--model",
            f"tests.door_nets:{net}",
            *common(f),
            "--rounds",
            "1",
            "--epochs",
            "1",
            "--perturbations",
            "1",
            "--method",
            "sgd:passes=1",
        ),
        "results.json",
    ),
    "harden": (
        by_name("harden", "--eps", "1/255", "--epochs", "1", "--method", "fast", "--limit", "12"),
        "results.json",
    ),
    "input-defences": (by_name("input-defences", *EPS, "--defences", "bits,flips", "--limit", "12"), "results.json"),
    "search": (
        lambda f, net: (
            "search",
            "--features",
            "deep",
            "--model",
            saved(net, f / "model"),
            "--trust-code",
            *common(f)[:2],
            *common(f)[4:],
            "--methods",
            "random",
            "--budget",
            "30",
            "--seeds",
            "2",
            "--folds",
            "2",
        ),
        "results.json",
    ),
}


def findings(folder: Path, name: str) -> dict[str, object]:
    """What a results file says of the network and how its outputs are read."""
    told = json.loads((folder / "out" / name).read_text())
    return {**told.get("conditions", {}), **told}


@pytest.mark.parametrize("command", JUDGING)
@pytest.mark.slow  # each command once, 1 to 5 s each
def test_swapped_outputs_are_asked_about_and_all_doubts_are_kept(command, tmp_path, capsys):
    line, results = JUDGING[command]
    table(tmp_path, 0.4 if command in MORE else 0.3, command)
    net = "in_order" if command in ("defend", "harden") else "of_the_batch"  # which is not trained
    assert run(*line(tmp_path, net)) == 0
    said = capsys.readouterr()
    assert f"note: {QUESTION}" in said.err  # before the work
    assert said.out.count(QUESTION) == 1
    assert said.out.startswith(QUESTION)  # and before any number
    assert (f"note: {COMPANY}" in said.err) == (net == "of_the_batch")
    if results:
        told = findings(tmp_path, results)
        assert [c["passed"] for c in told["checks"] if c["name"] == NAME] == [False]
        assert told["model_doubts"] == [COMPANY] * (net == "of_the_batch")
        assert told["model_notes"] == []
    if command == "explain":
        page = (tmp_path / "out/report.html").read_text()
        assert page.count('<p class="banner"><strong>In doubt, ') == len(told["explained"]["0"]["doubts"]) == 2


@pytest.mark.parametrize("command", ["detect", "evade", "explain"])
def test_it_is_asked_even_where_nothing_is_left_to_do(command, tmp_path, capsys):
    table(tmp_path, 1, command)
    assert run(*JUDGING[command][0](tmp_path, "swapped")) == 2
    assert f"note: {QUESTION}" in capsys.readouterr().err


def test_a_network_that_depends_on_the_batch_is_not_trained_further(tmp_path, capsys):
    table(tmp_path, 0.9, "defend")
    assert run(*JUDGING["defend"][0](tmp_path, "of_the_batch")) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last == f"medrobust: this network can be audited as it is, but not trained here: {COMPANY}"


@pytest.mark.parametrize("net", ["swapped", "of_the_batch"])
def test_a_study_says_it_of_the_network_and_keeps_it(net, tmp_path, capsys):
    table(tmp_path, 1)
    saved(net, tmp_path / "models" / "bright")
    (tmp_path / "door.py").write_text(STUDY.replace("NET", net))
    command = (
        "study",
        "run",
        tmp_path / "door.py",
        "--data",
        tmp_path,
        "--models",
        tmp_path / "models",
        "--out",
        tmp_path / "out",
        "--trust-code",
    )
    assert run(*command) == 0
    text = QUESTION if net == "swapped" else COMPANY
    assert f"in doubt, bright: {text}" in capsys.readouterr().out
    (doubt,) = json.loads((tmp_path / "out" / "results.json").read_text())["doubts"]
    assert doubt["model"] == "bright"
    assert doubt["text"].startswith(text)


@pytest.mark.parametrize("command", JUDGING)
@pytest.mark.slow  # each command once, 1 to 5 s each
def test_what_the_outputs_are_can_be_said_everywhere(command, tmp_path, capsys):
    line, _ = JUDGING[command]
    table(tmp_path, 0.9, command)
    arguments = line(tmp_path, "squashed")
    assert run(*arguments) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].endswith('--outputs logits (in Python outputs="logits")')
    assert run(*arguments, "--outputs", "logits") == 0
    assert "SWAPPED" not in "".join(capsys.readouterr())


@pytest.mark.parametrize("command", ["detect", "evade", "explain"])
def test_a_torchscript_program_ends_in_one_line_where_its_layers_are_needed(command, tmp_path, capsys):
    table(tmp_path, 0.9, command)
    assert run(*JUDGING[command][0](tmp_path, "scripted"), *(("--detectors", "kd") if command == "evade" else ())) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("medrobust: ")
    assert last.endswith("A TorchScript program's layers cannot be read: give the network as a plain torch module")


def test_an_audit_of_a_torchscript_program_leaves_out_what_needs_its_layers(tmp_path):
    table(tmp_path, 0.9, "detect")
    line = JUDGING["audit"][0](tmp_path, "scripted")
    assert run(*(a for a in line if a not in ("--no-detect", "--no-explain")), "--limit", "30") == 0
    notes = {r["kind"]: r["note"] for r in findings(tmp_path, "results.json")["rows"] if "TorchScript" in r["note"]}
    assert notes.keys() >= {"detector", "explanation"}


OF_RUNS = {"report", "compare", "verify"}
"""Commands that read finished runs and judge no classifier."""


def test_options_of_images_and_networks_are_the_same_everywhere():
    images, network, *_ = GROUPS
    for command in COMMANDS:
        text, taken = printed(command.__name__.replace("_", "-"), "--help"), command.__annotations__.values()
        for group in (images, network):
            for name in group.__dataclass_fields__ if group.__name__ in taken else ():
                assert f"--{name.strip('_').replace('_', '-')}" in text, command.__name__
        if command.__name__ not in (*OF_RUNS, "names", "doctor", "init"):
            assert "--outputs" in text, command.__name__


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--weights", "w.pth"), "is a saved classifier with weights of its own; leave --weights out"),
        (("--head", "logit"), "states its head as softmax, --head says logit; leave --head out"),
        (("--mean", "0.5"), "states its mean as (0.0,), --mean says (0.5,); leave --mean out"),
        (("--outputs", "chances"), "outputs: "),
    ],
)
def test_what_a_saved_classifier_states_is_not_contradicted_in_silence(options, says, tmp_path, capsys):
    table(tmp_path, 0.9)
    model = saved("in_order", tmp_path / "model")
    assert run("attack", "--model", model, *common(tmp_path)[:4], "--trust-code", *EPS, *options) == 2
    assert says in capsys.readouterr().err.strip().splitlines()[-1]


def test_every_command_that_writes_a_results_file_can_print_it():
    with_json = {c.__name__.replace("_", "-") for c in COMMANDS if AS_JSON in inspect.signature(expanded(c)).parameters}
    assert with_json - OF_RUNS == {command for command, (_, results) in JUDGING.items() if results}


@pytest.mark.parametrize("command", ["audit", "universal"])
def test_json_is_the_results_file_and_nothing_else(command, tmp_path, capsys):
    line, results = JUDGING[command]
    table(tmp_path, 0.4 if command in MORE else 0.3, command)
    assert run(*line(tmp_path, "of_the_batch"), "--json") == 0
    said = capsys.readouterr()
    told = json.loads(said.out)
    assert told == json.loads((tmp_path / "out" / results).read_text())
    assert QUESTION in said.err
    assert findings(tmp_path, results)["model_doubts"] == [COMPANY]
