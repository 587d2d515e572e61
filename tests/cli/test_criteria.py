"""Acceptance criteria through the command line: exit codes, first lines, JUnit, what stood before the run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image

from medrobust.cli.command_line import command_line
from tests import report_runs
from tests.commands import run

DOCS = Path(__file__).parents[2] / "docs"
NETWORK = """
import torch

class Net(torch.nn.Module):
    \"\"\"Bright images are ill.\"\"\"

    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2, size * size) * torch.tensor([[-1.0], [1.0]]))

    def forward(self, x):
        return (x - 0.5).flatten(1) @ self.weight.T

def make(classes, size):
    return Net(size)
"""
AUDIT = """
command: audit
data: csv:scans.csv
model: net_of_criteria:make
train: false
classes: [well, ill]
attacks: [fgsm]
eps: [1/255, 64/255]
auto: none
corruptions: none
universal: false
detect: false
explain: false
stored: false
limit: 20
device: cpu
criteria:
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("criteria")
    (folder / "net_of_criteria.py").write_text(NETWORK)
    pixels = np.random.default_rng(0).integers(80, 110, (40, 16, 16), dtype=np.uint8)
    lines = ["file,label"]
    for i, image in enumerate(pixels):
        Image.fromarray(image if i % 2 else 255 - image).save(folder / f"{i:02d}.png")
        lines.append(f"{i:02d}.png,{'well' if i % 2 else 'ill'}")
    (folder / "scans.csv").write_text("\n".join(lines))
    return folder


def audit(home: Path, monkeypatch, out: str, *criteria: str, more: tuple[str, ...] = ()) -> int:
    monkeypatch.chdir(home)
    path = home / f"{out}.yaml"
    path.write_text(AUDIT + "".join(f"  - {json.dumps(c)}\n" for c in criteria))
    return run("audit", path, "--out", home / out, *more)


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_criteria_of_an_audit_stand_before_it_and_decide_its_exit_code(home, monkeypatch, capsys):
    required = ("accuracy@64/255 <= 0.9", "sensitivity[class=ill]@1/255 >= 0.7", "accuracy@64/255 >= 99.9 %")
    assert audit(home, monkeypatch, "first", *required) == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "acceptance criteria: 2 pass, 1 fails"
    assert lines[1].startswith("  passes: accuracy@64/255 <= 0.9: 0 (0–0.161), n = 20; attack, fgsm, accuracy")
    first, spec = results(home / "first"), json.loads((home / "first/spec.json").read_text())
    assert first["criteria"]["sha256"] == first["criteria"]["begun_with"] == spec["criteria"]["sha256"]
    assert spec["criteria"]["texts"] == [*required[:2], "accuracy@64/255 >= 0.999"]
    page = (home / "first/report.html").read_text()
    assert first["criteria"]["sha256"] in page
    top = page[page.index("<body>") :]
    assert top.index("Acceptance criteria: 2 pass, 1 fails") < top.index("<header>")
    assert (home / "first/summary.md").read_text().startswith("**Acceptance criteria: 2 pass, 1 fails**\n")

    # the same run with other criteria: the numbers are kept, and it is said that they were changed
    assert audit(home, monkeypatch, "first", "accuracy@64/255 <= 0.9") == 0
    printed = capsys.readouterr()
    assert "not those of the start" in printed.err + printed.out
    again = results(home / "first")
    assert again["rows"] == first["rows"]
    assert again["criteria"]["begun_with"] == first["criteria"]["sha256"] != again["criteria"]["sha256"]
    assert "They were changed after the run began" in (home / "first/report.html").read_text()
    assert json.loads((home / "first/spec.json").read_text())["criteria"] == spec["criteria"]

    # a drop against it, on the same images and on others
    drop = "drop[accuracy]@1/255 <= 0.5"
    shutil.copytree(home / "first", home / "before")
    assert audit(home, monkeypatch, "first", drop, more=("--baseline", str(home / "before"))) == 0
    judged = results(home / "first")["criteria"]["judged"][0]
    assert judged["reason"].endswith("; paired, same images")
    assert (judged["value"], judged["low"], judged["n"]) == (0.0, pytest.approx(-judged["high"]), 20)
    others = ("--baseline", str(home / "before"), "--limit", "10")
    assert audit(home, monkeypatch, "third", drop, more=others) == 2
    assert "other attacked images" in capsys.readouterr().err
    assert not (home / "third").exists()


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        ("acuracy >= 0.9", "did you mean accuracy?"),
        ("accuracy@2/255 >= 0.9", "there is no number at 2/255; there are: 1/255, 64/255"),
        ("sensitivity[class=sick]@1/255 >= 0.9", "there is no class 'sick'; there are: well, ill"),
        ("success[kind=universal] <= 0.3", "no numbers of kind universal (--no-universal)"),
        ("drop[accuracy] <= 0.1", "give --baseline RUN_FOLDER"),
    ],
)
def test_what_the_audit_cannot_answer_is_refused_before_it(home, monkeypatch, capsys, criterion, message):
    assert audit(home, monkeypatch, "refused", criterion) == 2
    assert message in capsys.readouterr().err
    assert not (home / "refused").exists()


@pytest.mark.parametrize(
    ("required", "code", "line"),
    [
        (("accuracy >= 0.8",), 0, "acceptance criteria: 1 passes"),
        (("accuracy >= 0.9", "accuracy >= 0.95"), 3, "acceptance criteria: 1 fails, 1 cannot be judged"),
        (("accuracy >= 0.9", "success[kind=universal] <= 0.3"), 4, "acceptance criteria: 2 cannot be judged"),
        (("accuracy@3/255 >= 0.9",), 2, ""),
        (("sensitivity >= 0.9",), 2, ""),
    ],
)
def test_a_finished_run_is_judged_without_computing(tmp_path, capsys, required, code, line):
    folder = report_runs.make(tmp_path / "run", "audit")
    options = [word for text in required for word in ("--require", text)]
    assert run("report", folder, *options) == code
    assert capsys.readouterr().out.partition("\n")[0] == line
    if code == 2:
        assert not (folder / "criteria.xml").exists()
        return
    suite = ElementTree.parse(folder / "criteria.xml").getroot()[0]
    assert int(suite.get("tests")) == len(suite.findall("testcase")) == len(required)
    assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))
    assert int(suite.get("errors")) == len(suite.findall("testcase/error"))
    assert {0: (0, 0), 3: (1, 1), 4: (0, 2)}[code] == (int(suite.get("failures")), int(suite.get("errors")))
    page = (folder / "report.html").read_text()
    assert "They were given after the run began" in page
    assert "results.json does not hold them or their verdicts" in page
    assert run("report", folder) == 0
    assert not (folder / "criteria.xml").exists()
    assert "cceptance criteria" not in (folder / "summary.md").read_text()


def test_a_run_in_doubt_passes_nothing(tmp_path, capsys):
    folder = report_runs.make(tmp_path / "run", "inconclusive")
    assert run("report", folder, "--require", "accuracy[attack=pgd]@1/255 >= 0.1") == 4
    assert "cannot be judged: accuracy[attack=pgd]@1/255 >= 0.1: 0.92" in (printed := capsys.readouterr().out)
    assert "zero gradients" in printed


def test_a_criterion_is_no_file_name():
    typed = ["audit", "--require", "accuracy@1/255 >= 0.8", "--criteria=auroc@4/255 > 0", "--weights", "/a/net.pth"]
    line = command_line(typed)
    assert "'accuracy@1/255 >= 0.8' '--criteria=auroc@4/255 > 0'" in line
    assert "/a/" not in line


def test_the_workflow_of_the_guide_gates_a_pull_request(tmp_path, monkeypatch):
    """Its shell steps, on small images and a small network."""
    steps = yaml.safe_load((DOCS / "ci/robustness.yml").read_text())["jobs"]["audit"]["steps"]
    install, gate, show = (step["run"] for step in steps if "run" in step)
    assert install == "python -m pip install -r requirements.txt -e ."
    shutil.copytree(DOCS / "ci", tmp_path / "docs/ci")
    monkeypatch.chdir(tmp_path)
    small = "--data phantom:chest@16:n=60 --model small_cnn --epochs 1 --attacks pgd:steps=2 --limit 4 --device cpu"
    assert shlex.split(gate)[0] == "medrobust"
    assert run(*shlex.split(gate)[1:], *small.split()) in (3, 4)
    env = {"GITHUB_STEP_SUMMARY": str(tmp_path / "summary"), "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-e", "-c", show], check=True, env=env)
    assert (tmp_path / "summary").read_text().startswith("**Acceptance criteria: ")
    kept = next(step["with"]["path"].split() for step in steps if "upload-artifact" in step.get("uses", ""))
    assert all((tmp_path / path).is_file() for path in kept)
    # where the audit fails the job, what it left is still shown and kept
    assert all(step["if"] == "${{ !cancelled() }}" for step in steps[-2:])
