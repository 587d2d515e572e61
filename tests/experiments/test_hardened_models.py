"""A study's model with ``hardening`` is the one that training and hardening it by hand give."""

from __future__ import annotations

import json

import pytest

from medrobust import data, training
from medrobust.threat import Linf
from tests.commands import run

FILE = """
from medrobust.experiments import catalogue
from medrobust.grid import Data, Model, Part, Study

def study(size):
    chest = Data("chest", "phantom:chest@16:n=54", size=16)
    hardening = {hardening}
    models = [
        Model("plain", chest, "small_cnn", {{"epochs": 1}}),
        Model("hardened", chest, "small_cnn", {{"epochs": 1, "hardening": hardening}}),
    ]
    return Study("Hardened", "", [Part("clean", "Clean", [catalogue.clean(m) for m in models[{first}:]])])
"""
HARDENING = {"method": "pgd:steps=1", "eps": 4 / 255, "epochs": 1, "lr": 1e-3}


@pytest.mark.parametrize("first", [0, 1], ids=["after the plain one", "alone"])
def test_a_hardened_model_is_that_of_the_commands(first, tmp_path):
    file, out = tmp_path / "hardened.py", tmp_path / "run"
    file.write_text(FILE.format(hardening=HARDENING, first=first))
    assert run("study", "run", file, "--size", "smoke", "--out", out) == 0
    models = {m["name"]: m["digest"] for m in json.loads((out / "results.json").read_bytes())["models"]}
    images = data.load("phantom:chest@16:n=54")
    plain = training.fit(images, "small_cnn", epochs=1)
    method = training.METHODS["pgd"](Linf(4 / 255), steps=1)
    hardened = training.further(plain, images, epochs=1, lr=1e-3, method=method)
    assert models.get("plain", plain.digest()) == plain.digest() != hardened.digest()
    assert models["hardened"] == hardened.digest()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"method": "pdg"}, "pdg"),
        ({"eps": 0}, "--eps wants one size above 0"),
        ({"rounds": 3}, "model 'hardened': hardening takes no 'rounds'"),
    ],
)
def test_a_mistake_in_hardening_is_one_line_before_anything_runs(change, why, tmp_path, capsys):
    file, out = tmp_path / "hardened.py", tmp_path / "run"
    file.write_text(FILE.format(hardening=HARDENING | change, first=0))
    assert run("study", "run", file, "--size", "smoke", "--out", out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
    assert not out.exists()
