"""Rows of a study follow the check of the gradient, as those of an audit do; networks beside the study file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medrobust.cli import app
from medrobust.report import section, study_page

CHECK = "the gradient agrees with finite differences"

NETWORKS = """
import torch

class Net(torch.nn.Module):
    def __init__(self, hide):
        super().__init__()
        self.layer = torch.nn.Linear(64, 2)
        self.hide = hide

    def forward(self, x):
        seen = torch.nn.functional.adaptive_avg_pool2d(x.detach() if self.hide else x, 8).flatten(1)
        term = 1e-5 * x.flatten(1).sum(1, keepdim=True) * torch.tensor([-1.0, 1.0])
        return self.layer(seen) + self.hide * term

def open(classes, size):
    return Net(False)

def masked(classes, size):
    return Net(True)
"""
STUDY = """
from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Part, Study

def study(size):
    data = Data("chest", "phantom:chest@32:n=72")
    masked, honest = (Model(n, data, f"own_networks:{n}", {"epochs": 2}) for n in ("masked", "open"))
    asked = {"eps": (1 / 255,), "limit": 4}
    cells = []
    for model in (masked, honest):
        pgd, square = (catalogue.curve(model, a, **asked) for a in ("pgd:steps=2", "square:queries=5"))
        made = catalogue.universal(model, settings={"passes": 1}, n=8, measured=8)
        cells += [catalogue.clean(model, limit=4), pgd, square, catalogue.worst([pgd, square])]
        cells += [catalogue.noise(model, **asked), catalogue.judged(made, images=4)]
    cells += [catalogue.transfer(honest, masked, "fgsm", **asked), catalogue.transfer(masked, honest, "fgsm", **asked)]
    return Study("Gradients", "here", [Part("own", "Own", cells)])
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, dict, str]:
    """Run folder, results and output."""
    folder = tmp_path_factory.mktemp("gradients")
    (folder / "own_networks.py").write_text(NETWORKS)
    (folder / "own_gradients.py").write_text(STUDY)
    asked = ["study", "run", str(folder / "own_gradients.py"), "--out", str(folder / "out"), "--size", "smoke"]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return folder / "out", json.loads((folder / "out/results.json").read_text()), done.output


def notes(told: dict, model: str, attack: str, **more: object) -> set[bool]:
    """Whether the rows of that attack, costs apart, are inconclusive because of the check."""
    rows = [r for r in told["rows"] if r["model"] == model and r["attack"] == attack]
    rows = [r for r in rows if all(r.get(k) == v for k, v in more.items())]
    rows = [
        r
        for r in rows
        if r["metric"]
        not in ("gradients", "gradients_per_image", "forwards_per_image", "queries", "inconclusive", "norm_used")
    ]
    assert rows
    return {r["status"] == "inconclusive" and CHECK in r["note"] for r in rows}


@pytest.mark.parametrize("attack", ["pgd:steps=2", "worst", "sga"])
def test_what_follows_a_hidden_gradient_is_inconclusive(ran, attack):
    _, told, _ = ran
    assert notes(told, "masked", attack) == {True}
    assert notes(told, "open", attack) == {False}


@pytest.mark.parametrize("attack", ["none", "noise", "square:queries=5"])
def test_what_does_not_follow_it_is_not(ran, attack):
    _, told, _ = ran
    assert notes(told, "masked", attack) == notes(told, "open", attack) == {False}


def test_a_transferred_attack_rests_on_the_gradient_of_its_surrogate(ran):
    _, told, _ = ran
    assert notes(told, "open", "fgsm", made_on="masked") == {True}
    assert notes(told, "masked", "fgsm", made_on="open") == {False}


def test_the_check_is_made_once_for_a_classifier_and_told_everywhere(ran):
    out, told, shown = ran
    assert [(c["model"], c["data"], c["passed"]) for c in told["checks"]] == [
        ("masked", "chest", False),
        ("open", "chest", True),
    ]
    made = [json.loads(p.read_text())["spec"] for p in (out / "cells").glob("*/rows.json")]
    assert sum(spec.get("kind") == "gradient check" for spec in made) == 2
    assert f"INCONCLUSIVE: masked on chest: failed: “{CHECK}”" in shown.replace("\n", " ")
    study = study_page.StudyFindings(told)
    page = study_page.html(study, section.built(study))
    assert "attacks followed a gradient that is not the network&#39;s" in page
    assert f"open on chest: {CHECK}: passed" in page
    assert "INCONCLUSIVE: masked" in CliRunner().invoke(app, ["study", "show", str(out)]).output
