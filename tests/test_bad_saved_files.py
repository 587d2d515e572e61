"""Saved perturbations, states, guards and specs with missing or wrong fields: one line, or made anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import medrobust as mr
from medrobust import InputError
from medrobust.detectors.guard import CARD, Guard
from medrobust.experiments import ask, audit
from medrobust.run_folder import RunFolder
from medrobust.training.state import FILE, TrainingState
from medrobust.universal import Universal
from medrobust.universal.checkpoint import Checkpoint

DEEP = "[" * 100_000
V = {
    "format": "medrobust universal perturbation 1",
    "ball": {"norm": "linf", "eps": 0.1},
    "target": None,
    "provenance": {},
    "history": [],
    "why": "",
}

PERTURBATIONS = {
    "no-json": "{",
    "a-list": "[]",
    "null": "null",
    "deep": DEEP,
    "other-format": json.dumps({**V, "format": "x"}),
    **{f"no-{k}": json.dumps({n: v for n, v in V.items() if n != k}) for k in V},
    **{f"wrong-{k}": json.dumps({**V, k: 7.5}) for k in V},
    "norm": json.dumps({**V, "ball": {"norm": "l7", "eps": 0.1}}),
    "norm-list": json.dumps({**V, "ball": {"norm": ["linf"], "eps": 0.1}}),
    "eps-text": json.dumps({**V, "ball": {"norm": "linf", "eps": "0.1"}}),
    "eps-nan": json.dumps({**V, "ball": {"norm": "linf", "eps": float("nan")}}),
    "eps-negative": json.dumps({**V, "ball": {"norm": "linf", "eps": -1}}),
    "history": json.dumps({**V, "history": [1, 2]}),
}


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_perturbation(tmp_path, name):
    path = tmp_path / "v.safetensors"
    save_file({"delta": torch.zeros(1, 4, 4)}, path, {"universal": PERTURBATIONS[name]})
    with pytest.raises(InputError) as caught:
        Universal.load(path)
    assert "\n" not in str(caught.value)


STANDS = {
    "no-json": "{",
    "a-list": "[]",
    "deep": DEEP,
    "no-fields": json.dumps({"": {}}),
    "wrong-part": json.dumps({"a": 3}),
    "wrong-history": json.dumps({"a": {"history": {}, "counted": {}}}),
    "no-tensors": json.dumps({"b": {"history": [], "counted": {}}}),
}


@pytest.mark.parametrize("name", STANDS)
def test_an_unfinished_perturbation_is_begun_anew(tmp_path, name):
    path = tmp_path / "unfinished.safetensors"
    save_file({"a/x": torch.zeros(2)}, path, {"about": "this", "stands": STANDS[name]})
    assert Checkpoint(path, "this").stands == {}


STATE = {"epoch": 1, "best_epoch": 1, "history": [{"loss": 1.0}], "done": False}
STATES = {
    "no-json": "{",
    "a-list": "[]",
    "deep": DEEP,
    "more-epochs": json.dumps({**STATE, "epoch": 9}),
    "best-beyond": json.dumps({**STATE, "best_epoch": 4}),
    "history": json.dumps({**STATE, "history": [3]}),
    **{f"no-{k}": json.dumps({n: v for n, v in STATE.items() if n != k}) for k in STATE},
    **{f"wrong-{k}": json.dumps({**STATE, k: "x"}) for k in STATE},
}


@pytest.mark.parametrize("name", STATES)
def test_an_unfinished_training(tmp_path, name):
    net = torch.nn.Linear(2, 2)
    tensors = {f"{part}/{k}": v.clone() for part in ("best", "net") for k, v in net.state_dict().items()}
    save_file(tensors, tmp_path / FILE, {"key": "k", "state": STATES[name]})
    with pytest.raises(InputError) as caught:
        TrainingState.read(tmp_path, "k", net, torch.optim.SGD(net.parameters(), lr=0.1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        DEEP,
        "{}",
        '{"format": "medrobust guard 1"}',
        '{"format": "medrobust guard 1", "threshold": "high"}',
        '{"format": "medrobust guard 1", "threshold": null}',
    ],
)
def test_a_guard(tmp_path, text):
    (tmp_path / CARD).write_text(text)
    with pytest.raises(InputError) as caught:
        Guard.load(tmp_path)
    assert "\n" not in str(caught.value)


D = {
    "format": "medrobust detector 2",
    "kind": "KD",
    "settings": {},
    "layers": [],
    "rule": "x",
    "fitted": {},
    "sha256": "0",
}
DETECTORS = {
    "no-json": "{",
    "deep": DEEP,
    **{f"no-{k}": json.dumps({n: v for n, v in D.items() if n != k}) for k in D},
    **{f"wrong-{k}": json.dumps({**D, k: 3}) for k in D},
    "layers": json.dumps({**D, "layers": [1]}),
    "kind-list": json.dumps({**D, "kind": ["KD"]}),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_a_detector(tmp_path, name):
    (tmp_path / "detector.json").write_text(DETECTORS[name])
    (tmp_path / "detector.safetensors").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        mr.detectors.Detector.load(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", DEEP, "{}", '{"config": 3}', '{"config": []}'])
def test_what_was_asked_of_an_audit(tmp_path: Path, text):
    with RunFolder(tmp_path / "run", "audit") as run:
        run.write_text("spec.json", text)
    with pytest.raises(InputError, match=r"spec\.json") as caught:
        audit(ask(model="small_cnn"), tmp_path / "run")
    assert "\n" not in str(caught.value)
