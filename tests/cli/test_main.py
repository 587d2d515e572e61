"""Bad input gets exit code 2 and one line that says what, where and how to mend it; help and doctor work."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from medrobust import Classifier, __version__, models
from tests.commands import run
from tests.data_files import class_folders, cohort, picture, write_table

QUICK = ("--epochs", "1", "--limit", "12", "--attacks", "fgsm", "--eps", "1/255", "--device", "cpu")
PHANTOM = ("--data", "phantom:chest@32:n=120")
NETWORKS = """
import torch
from torch import nn

def grey(classes):
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, classes))

def softmax(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes), nn.Softmax(1))

def sigmoid():
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 1), nn.Sigmoid())

def nan(classes):
    net = grey(classes)
    net[3].weight.data[0, 0] = float("nan")
    return net

def seven():
    return grey(7)

def pair():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x
    return Pair()

def number():
    return 3
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with tables, networks and checkpoints, good and bad."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        fill(folder)
        yield folder


def fill(folder: Path) -> None:
    (folder / "networks_of_the_tests.py").write_text(NETWORKS)
    table = cohort(folder / "good", n=24)
    lines = table.read_text().splitlines()
    write = {
        "one_class": [lines[0], *(line for line in lines[1:] if line.endswith("ill"))],
        "missing": [*lines, "999.png,ill"],
        "unlabelled": [*lines[:-1], lines[-1].partition(",")[0] + ","],
        "twice": [*lines, lines[1].replace("ill", "well")],
        "only_train": [lines[0] + ",split", *(f"{line},train" for line in lines[1:])],
        "odd_split": [lines[0] + ",split", *(f"{line},maybe" for line in lines[1:])],
        "headless": ["picture,finding", *lines[1:]],
        "bare": [lines[0]],
        "empty": [],
    }
    for name, text in write.items():
        (table.parent / f"{name}.csv").write_text("\n".join(text) + "\n" * bool(text))
    (table.parent / "latin.csv").write_bytes("file,label\n000.png,Lungenentzündung\n".encode("latin-1"))
    (folder / "broken").mkdir()
    write_table(folder / "broken", [{"file": f"{i}.png", "label": "ab"[i % 2]} for i in range(6)])
    for i in range(6):
        (folder / "broken" / f"{i}.png").write_bytes((table.parent / "000.png").read_bytes()[:40])
    write_table(folder / "sizes", [{"file": f"{i}.png", "label": "ab"[i % 2]} for i in range(6)])
    for i in range(6):
        Image.fromarray(picture(i, size=16 + i)).save(folder / "sizes" / f"{i}.png")
    shutil.rmtree(class_folders(folder / "lone") / "well")
    shutil.copytree(class_folders(folder / "three") / "well", folder / "three" / "other")
    (folder / "file").write_text("")
    (folder / "void").mkdir()
    (folder / "half").mkdir()
    (folder / "half" / "results.json").write_text('{"format": 1, "rows": [')
    (folder / "future").mkdir()
    (folder / "future" / "results.json").write_text('{"format": 99}')
    checkpoints(folder)


def checkpoints(folder: Path) -> None:
    torch.manual_seed(0)
    net = models.build("small_cnn", classes=2, channels=1, size=32)
    clf = Classifier(net, ("normal", "pneumonia"), size=32, provenance={"architecture": "small_cnn"})
    clf.save(folder / "model")
    state = load_file(folder / "model" / "model.safetensors")
    card = json.loads((folder / "model" / "model.json").read_text())

    def variant(name: str, tensors: dict[str, torch.Tensor], **changes: object) -> None:
        (folder / name).mkdir()
        save_file(tensors, folder / name / "model.safetensors")
        digest = hashlib.sha256((folder / name / "model.safetensors").read_bytes()).hexdigest()
        (folder / name / "model.json").write_text(json.dumps(card | {"sha256": digest} | changes))

    bad = dict(state)
    bad["classifier.weight"] = bad["classifier.weight"].clone()
    bad["classifier.weight"][0, 0] = torch.nan
    variant("nan", bad)
    variant("other", state, architecture="cifar_resnet20")
    variant("swapped", state, sha256="0" * 64)
    variant("renamed", state, classes=["benign", "malignant"])
    variant("colour", state, channels=3)
    torch.save(torch.nn.Linear(2, 2), folder / "pickle.pth")
    save_file(bad, folder / "nan.safetensors")
    torch.save(state, folder / "weights.pth")


def table(name: str) -> tuple[str, ...]:
    return ("--data", f"csv:good/{name}.csv", "--model", "small_cnn", *QUICK)


def on_phantom(*more: str) -> tuple[str, ...]:
    return (*PHANTOM, "--model", "small_cnn", *QUICK, *more)


def own(name: str, *more: str) -> tuple[str, ...]:
    return (*PHANTOM, "--model", f"networks_of_the_tests:{name}", *QUICK, *more)


BAD = {
    # images and tables
    "no-kind": (("--data", "good/labels.csv"), "did you mean csv:good/labels.csv"),
    "unknown-kind": (("--data", "zip:x"), "KIND one of phantom, csv, folder, dicom, nifti, medmnist"),
    "missing-table": (("--data", "csv:none.csv"), "there is no table none.csv"),
    "missing-folder": (("--data", "folder:none"), "none"),
    "missing-npz": (("--data", "medmnist:none.npz"), "none.npz"),
    "unknown-phantom": (("--data", "phantom:knee"), "choose chest, fundus, skin"),
    "missing-files": (table("missing"), "1 of the 25 files .* not there: '999.png'"),
    "all-broken": (("--data", "csv:broken/labels.csv"), r"6 of the 6 images .* cannot be read, first 0\.png"),
    "sizes-differ": (("--data", "csv:sizes/labels.csv"), "differ in size .*size=224"),
    "unknown-label-column": ((*table("labels"), "--label", "diagnosis"), "no column 'diagnosis'.*label='label'"),
    "two-labels": (table("twice"), "lines 2 and 26 .*'ill' and with 'well'"),
    "one-class": (table("one_class"), "at least two classes, found only 'ill'"),
    "one-class-folder": (("--data", "folder:lone"), "two classes"),
    "empty-split": (table("only_train"), "test"),
    "odd-split": (table("odd_split"), "'maybe' in 24 rows; use train, val or test"),
    "no-file-column": (table("headless"), "no column file, only 'picture', 'finding'"),
    "no-rows": (table("bare"), "no rows"),
    "empty-table": (table("empty"), "is empty"),
    "tiny": ((*table("labels"), "--size", "4"), "size must be at least 8"),
    "two-channels": ((*table("labels"), "--channels", "2"), "channels must be 1 or 3, got 2"),
    # networks
    "unknown-model": ((*PHANTOM, "--model", "resnet19", *QUICK), "resnet18"),
    "missing-checkpoint": ((*PHANTOM, "--model", "void", *QUICK), "no checkpoint in void"),
    "nan-checkpoint": ((*PHANTOM, "--model", "nan", *QUICK), "classifier.weight"),
    "other-architecture": ((*PHANTOM, "--model", "other", *QUICK), "another architecture than cifar_resnet20"),
    "changed-checkpoint": ((*PHANTOM, "--model", "swapped", *QUICK), "sha256 differs"),
    "other-classes": ((*PHANTOM, "--model", "renamed", *QUICK), "'normal', which the classifier does not know"),
    "checkpoint-of-other-channels": ((*PHANTOM, "--model", "colour", *QUICK), "another architecture"),
    "bare-weights": ((*PHANTOM, "--model", "weights.pth", *QUICK), "--weights weights.pth"),
    "pickle": (on_phantom("--weights", "pickle.pth", "--mean", "0.5", "--std", "0.5"), r"pickle\.pth"),
    "nan-weights": (on_phantom("--weights", "nan.safetensors", "--mean", "0.5", "--std", "0.5"), "classifier.weight"),
    "missing-weights": (on_phantom("--weights", "none.pth"), r"none\.pth"),
    "weights-without-statistics": (on_phantom("--weights", "weights.pth"), "give --mean and --std"),
    "wrong-channels": (("--data", "phantom:skin@32:n=120", "--model", "networks_of_the_tests:grey", *QUICK), "channel"),
    "probabilities": (own("softmax"), "probabilities already.*without its last softmax"),
    "one-probability": (own("sigmoid", "--head", "logit"), "probabilities already"),
    "nan-network": (own("nan"), "NaN or infinity in '3.weight'"),
    "seven-outputs": (own("seven"), "gives 7 output.s. an image, a softmax head of 2 classes needs 2"),
    "pair": (own("pair"), "must return one tensor of logits, got tuple"),
    "not-a-network": (
        own("number"),
        "must return a torch.nn.Module, or a function from images to scores or labels; it returned int",
    ),
    "no-function": (own("nothing"), "no function 'nothing'"),
    "no-module": ((*PHANTOM, "--model", "nowhere:make", *QUICK), "no module 'nowhere'"),
    "untrained": (on_phantom("--no-train"), "untrained"),
    "classes": (own("grey", "--classes", "a,b"), "the classifier does not know; it knows a, b"),
    "healthy": (own("grey", "--healthy", "fine"), "'fine' is not a class; the data has normal, pneumonia"),
    "threshold": (own("grey", "--threshold", "1.5"), "threshold must lie between 0 and 1, got 1.5"),
    "threshold-nan": (own("grey", "--threshold", "nan"), "threshold must lie between 0 and 1"),
    "mean": (own("grey", "--mean", "half", "--std", "1"), "--mean wants numbers .*'half'"),
    "mean-of-255": (own("grey", "--mean", "123", "--std", "58"), "divide them by 255"),
    "mean-of-two": (own("grey", "--mean", "0.5,0.5", "--std", "1"), "mean has 2 values; give one, or three"),
    "std-zero": (own("grey", "--mean", "0.5", "--std", "0"), "std must be positive"),
    # the attack
    "negative-eps": (on_phantom("--eps", "-1/255"), "eps must be a number from 0 up.*got -1/255"),
    "grey-levels": (on_phantom("--eps", "8"), "more than the whole pixel range.*8/255"),
    "falling-eps": (on_phantom("--eps", "2/255,1/255"), "ascending"),
    "no-number": (on_phantom("--eps", "small"), "'small' is no number.*0.5/255,1/255"),
    "no-eps": (on_phantom("--eps", ""), "eps"),
    "eps-over-zero": (on_phantom("--eps", "1/0"), "is no number"),
    "eps-nan": (on_phantom("--eps", "nan"), "eps"),
    "unknown-attack": (on_phantom("--attacks", "pgdd"), "'pgdd' is not known; choose from auto, fgsm, bim"),
    "no-attack": (on_phantom("--attacks", ","), "at least one attack"),
    "attack-option": (on_phantom("--attacks", "pgd:iterations=4"), "attack 'pgd' takes steps"),
    "attack-value": (on_phantom("--attacks", "pgd:steps=many"), "steps must be a whole number, got 'many'"),
    "attack-no-steps": (on_phantom("--attacks", "pgd:steps=0"), "steps and restarts must be at least 1"),
    "attack-endless": (on_phantom("--attacks", "cw:kappa=inf"), "kappa must be a number, got 'inf'"),
    "attack-half-a-step": (on_phantom("--attacks", "pgd:steps=2.5"), "steps must be a whole number, got '2.5'"),
    "norm": (on_phantom("--norm", "l3"), "norm.*linf"),
    "head": (on_phantom("--head", "sigmoid"), "head.*softmax"),
    "limit": (on_phantom("--limit", "-1"), "--limit must not be negative, got -1; 0 attacks every"),
    "limit-word": (on_phantom("--limit", "few"), "--limit"),
    "device": (on_phantom("--device", "gpu"), "device 'gpu' cannot be used here; give cpu"),
    "device-of-no-numbers": (on_phantom("--device", "meta"), "device 'meta' cannot be used"),
    "weights-and-pretrained": (on_phantom("--weights", "a.pth", "--pretrained", "b.pth"), "give one of the two"),
    "train-weights": (on_phantom("--weights", "a.pth", "--train"), "pretrained"),
    # training
    "no-epochs": (on_phantom("--epochs", "0"), "epochs"),
    "rate": (on_phantom("--lr", "-1"), "lr"),
    # where to
    "below-a-file": (on_phantom("--out", "file/run"), "cannot write to file/run.*choose another --out"),
    "a-file": (on_phantom("--out", "file"), "cannot write to file"),
    # the command line
    "unknown-option": (("--epsilon", "1"), "--epsilon"),
}


def one_line(error: str) -> str:
    """The one line that is neither progress nor a note on the data."""
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line and not re.fullmatch(r"note: .+|.+ \(\d+\)", line)]
    assert len(lines) == 1, error
    assert lines[0].startswith("medrobust: ")
    return lines[0]


@pytest.mark.parametrize("name", BAD)
def test_bad_input_to_an_audit_is_one_line(home, tmp_path, name, capsys):
    arguments, said = BAD[name]
    out = () if "--out" in arguments else ("--out", tmp_path / "run")
    assert run("audit", *arguments, *out) == 2
    assert re.search(said, one_line(capsys.readouterr().err))
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (table("only_train"), "empty split.*test|test.*empty|no test"),
        (on_phantom("--healthy", "fine"), "'fine' is not a class"),
        (on_phantom("--threshold", "1.5"), "threshold must lie between 0 and 1"),
        (("--data", "folder:three", "--model", "small_cnn", "--threshold", "0.3", *QUICK), "exactly two classes"),
    ],
    ids=["empty-split", "healthy", "threshold", "three-classes"],
)
def test_what_can_be_known_before_training_is_said_before_it(home, tmp_path, arguments, said, capsys):
    assert run("audit", *arguments, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert re.search(said, one_line(error))
    assert "training" not in error
    assert not (tmp_path / "run" / "training").exists()


OTHERS: dict[str, tuple[Callable[[Path], tuple[str | Path, ...]], str]] = {
    "report-of-nothing": (lambda t: ("report", "none"), "none is not a folder"),
    "report-of-an-unfinished-run": (lambda t: ("report", "void"), "holds no results.json; the run is unfinished"),
    "report-of-half-a-file": (lambda t: ("report", "half"), "no readable JSON"),
    "report-of-another-format": (lambda t: ("report", "future"), "format 99"),
    "train-one-class": (lambda t: ("train", "--out", t / "m", *table("one_class")[:4]), "two classes"),
    "train-below-a-file": (
        lambda t: ("train", "--out", "file/m", *PHANTOM, "--model", "small_cnn"),
        "cannot write to file/m",
    ),
    "train-unknown-model": (lambda t: ("train", "--out", t / "m", *PHANTOM, "--model", "small_cn"), "small_cn"),
    "train-device": (
        lambda t: ("train", "--out", t / "m", *PHANTOM, "--model", "small_cnn", "--device", "tpu0"),
        "device 'tpu0' cannot",
    ),
    "attack-no-folder": (lambda t: ("attack", "--model", "none", *PHANTOM), "none is not a folder"),
    "attack-empty-folder": (lambda t: ("attack", "--model", "void", *PHANTOM), "no checkpoint in void"),
    "attack-eps": (lambda t: ("attack", "--model", "model", *PHANTOM, "--eps", "-1"), "must be a number from 0 up"),
    "attack-unknown": (lambda t: ("attack", "--model", "model", *PHANTOM, "--attacks", "zap"), "'zap' is not known"),
    "attack-limit": (
        lambda t: ("attack", "--model", "model", *PHANTOM, "--limit", "-3"),
        "--limit must not be negative",
    ),
    "unknown-command": (lambda t: ("audlt",), "audlt"),
    "missing-argument": (lambda t: ("report",), "(?i)missing argument"),
    "surplus-argument": (lambda t: ("doctor", "now"), "(?i)unexpected extra argument"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_bad_input_to_the_other_commands_is_one_line(home, tmp_path, name, capsys):
    arguments, said = OTHERS[name]
    assert run(*arguments(tmp_path)) == 2
    assert re.search(said, one_line(capsys.readouterr().err))


@pytest.mark.parametrize("command", [(), ("audit",), ("train",), ("attack",), ("report",), ("doctor",)])
def test_every_command_has_help(command, capsys):
    assert run(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert "Usage" in shown
    assert "--help" in shown
    if not command:
        assert all(name in shown for name in ("audit", "train", "attack", "report", "doctor"))


def test_without_a_command_the_help_is_shown(capsys):
    assert run() in (0, 2)
    told = capsys.readouterr()
    assert "audit" in told.out + told.err
    assert "Traceback" not in told.err


def test_the_version_is_said(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out == f"medrobust {__version__}\n"


def test_the_doctor_says_what_is_installed(capsys):
    assert run("doctor") == 0
    shown = capsys.readouterr().out
    assert torch.__version__.partition("+")[0] in shown
    assert "extra medmnist" in shown


def test_a_model_is_trained_and_attacked_from_the_command_line(home, tmp_path, capsys):
    assert (
        run("train", "--out", tmp_path / "m", *PHANTOM, "--model", "small_cnn", "--epochs", "1", "--device", "cpu") == 0
    )
    told = capsys.readouterr().out
    assert re.search(r"validation balanced accuracy \d+\.\d %, AUROC|validation balanced accuracy \d+\.\d%", told)
    before = sorted(p.name for p in (tmp_path / "m").iterdir())
    assert (
        run(
            "attack",
            "--model",
            tmp_path / "m",
            *PHANTOM,
            "--attacks",
            "bim:steps=3",
            "--eps",
            "1/255,32/255",
            "--limit",
            "8",
            "--device",
            "cpu",
        )
        == 0
    )
    shown = capsys.readouterr().out
    assert "n = 8" in shown
    assert "32/255" in shown
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == before
