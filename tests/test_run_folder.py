"""Run folders: nothing that medrobust did not make is deleted or overwritten, no link is followed, one writer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import medrobust as mr
from medrobust import InputError
from medrobust.cli import main
from medrobust.run_folder import LOCK, MARK, InUseError, RunFolder
from medrobust.store import Store
from medrobust.universal import Universal

from .data_files import cohort
from .paired.audits import audit

SMALL = ("--model", "small_cnn", "--size", "16", "--epochs", "1", "--device", "cpu")


def run(*words: str | Path) -> int:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["medrobust", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A saved classifier, beside two finished audits."""
    net = mr.models.build("small_cnn:width=4", classes=2, channels=1, size=16)
    clf = mr.Classifier(
        net, ("ill", "well"), size=16, outputs="logits", provenance={"architecture": "small_cnn:width=4"}
    )
    folder = tmp_path_factory.mktemp("saved")
    audit(folder / "before")
    audit(folder / "after", median=2.0)
    return clf.save(folder / "model")


COMMANDS: dict[str, Callable[[Path, Path], tuple[str | Path, ...]]] = {
    "audit": lambda out, model: ("audit", *SMALL, "--out", out),
    "train": lambda out, model: ("train", "--out", out, *SMALL),
    "universal": lambda out, model: ("universal", "--model", model, "--out", out),
    "detect": lambda out, model: ("detect", "--model", model, "--out", out),
    "evade": lambda out, model: ("evade", "--model", model, "--out", out),
    "explain": lambda out, model: ("explain", "--model", model, "--out", out),
    "defend": lambda out, model: ("defend", "--model", model, "--out", out),
    "input-defences": lambda out, model: ("input-defences", "--model", model, "--out", out),
    "harden": lambda out, model: ("harden", "--model", model, "--out", out),
    "compare": lambda out, model: ("compare", model.parent / "before", model.parent / "after", "--out", out),
    "search": lambda out, model: ("search", "--data", "breast-cancer", "--out", out),
    "study": lambda out, model: ("study", "run", "studies/ma2020.py", "--size", "smoke", "--out", out),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_of_the_user_s_own_is_refused_and_loses_nothing(command, saved, tmp_path, capsys, monkeypatch):
    """``--out .`` beside training/CLASS/*.png once deleted the images."""
    monkeypatch.chdir(Path(__file__).parent.parent)
    for place in ("training/ill/1.png", "training/well/2.png", "cells/.notes", "model/model.json", "report.html"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(b"the user's")
    before = contents(tmp_path)
    assert run(*COMMANDS[command](tmp_path, saved)) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"medrobust: {tmp_path} holds files that medrobust did not make")
    assert error.count("\n") == 0
    assert contents(tmp_path) == before


def test_the_images_of_an_audit_beside_its_table_are_kept(tmp_path, monkeypatch, capsys):
    """The command of the report: the table's folder as --out."""
    cohort(tmp_path, n=12)
    (tmp_path / "training" / "ill").mkdir(parents=True)
    (tmp_path / "training" / "ill" / "x.png").write_bytes(b"a picture")
    before = contents(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert run("audit", "--data", "csv:labels.csv", *SMALL, "--out", ".") == 2
    assert "did not make" in capsys.readouterr().err
    assert contents(tmp_path) == before


def test_only_entries_that_the_mark_lists_are_written_or_removed(tmp_path):
    with RunFolder(tmp_path / "run", "audit") as folder:
        folder.write_text("results.json", "{}")
        (folder.entry("training")).mkdir()
        (folder.path / "model").mkdir()
        (folder.path / "model" / "notes.txt").write_text("the user's")
        with pytest.raises(InputError, match="model was not made by this run"):
            folder.entry("model")
        folder.remove("model")
        folder.remove("training")
    assert contents(tmp_path / "run").keys() == {MARK, LOCK, "manifest.json", "model/notes.txt", "results.json"}
    with RunFolder(tmp_path / "run", "audit") as folder:
        folder.write_text("results.json", "[]")
        (folder.path / "training").mkdir()  # the run's own was removed: this one is the user's
        with pytest.raises(InputError, match="training was not made by this run"):
            folder.entry("training")


def test_a_run_of_another_command_is_refused(tmp_path):
    with RunFolder(tmp_path, "detect") as folder:
        folder.begin()
    with pytest.raises(InputError, match="holds a run of another command, detect"):
        RunFolder(tmp_path, "audit")


def test_nothing_is_made_before_the_first_entry(tmp_path):
    with RunFolder(tmp_path / "deep" / "run", "audit"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", ["cells", "model", "results.json", "model/model.json", "log/worker-0.txt"])
def test_links_out_of_a_run_folder_are_refused(tmp_path, inside):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".notes").write_text("mine")
    with RunFolder(tmp_path / "run", "audit") as folder:
        folder.entry(inside.partition("/")[0])
    place = tmp_path / "run" / inside
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(elsewhere if inside in ("cells", "model") else elsewhere / ".notes")
    with pytest.raises(InputError, match="is a link, and links are not followed"), RunFolder(tmp_path / "run", "audit"):
        pass
    assert contents(elsewhere) == {".notes": b"mine"}


def test_a_cell_that_is_a_link_is_replaced_and_its_target_kept(tmp_path):
    store = Store(tmp_path / "run")
    store.once({"a": 1}, lambda: ({}, {"x": np.ones(2)}))
    (cell,) = store.cells.iterdir()
    outside = tmp_path / "outside"
    cell.rename(outside)
    (outside / "rows.json").write_text("{}")
    cell.symlink_to(outside)
    before = contents(outside)
    with pytest.warns(UserWarning, match="not the cell that was written"):
        store.once({"a": 1}, lambda: ({}, {"x": np.ones(2)}))
    assert not cell.is_symlink()
    assert contents(outside) == before


def test_dot_files_in_cells_are_kept_by_the_sweep(tmp_path):
    store = Store(tmp_path)
    (store.cells / ".notes").write_text("mine")
    (tmp_path / ".partial-notes").write_text("mine")
    store.sweep_leftovers()
    assert (store.cells / ".notes").exists()
    assert (tmp_path / ".partial-notes").exists()


MARKS = {
    "no-json": "{",
    "a-list": "[]",
    "deep": "[" * 100_000,
    "other-format": json.dumps({"format": 9, "kind": "audit", "id": "a", "created": "b", "entries": []}),
    "no-kind": json.dumps({"format": 1, "id": "a", "created": "b", "entries": []}),
    "entries-outside": json.dumps({"format": 1, "kind": "audit", "id": "a", "created": "b", "entries": ["../x"]}),
    "entries-up": json.dumps({"format": 1, "kind": "audit", "id": "a", "created": "b", "entries": [".."]}),
    "entries-numbers": json.dumps({"format": 1, "kind": "audit", "id": "a", "created": "b", "entries": [1]}),
}


@pytest.mark.parametrize("name", MARKS)
def test_a_broken_mark_is_one_line(tmp_path, name):
    (tmp_path / MARK).write_text(MARKS[name])
    with pytest.raises(InputError, match=MARK) as caught:
        RunFolder(tmp_path, "audit")
    assert "\n" not in str(caught.value)


# -- one writer ----------------------------------------------------------------------------------------------


def test_a_second_process_is_told_who_writes_and_since_when(tmp_path):
    with RunFolder(tmp_path, "audit") as first:
        first.begin()
        with pytest.raises(InUseError, match=rf"in use by process {os.getpid()} on \S+, since \d{{4}}-"):
            RunFolder(tmp_path, "audit").__enter__()
        Store(tmp_path).once({"a": 1}, lambda: ({}, {}))  # workers share the lock of who started them
    with RunFolder(tmp_path, "audit") as second:
        assert second.id == first.id


@pytest.mark.parametrize("command", [*COMMANDS, "study in workers"])
def test_every_command_that_writes_says_in_one_line_who_writes(command, saved, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(Path(__file__).parent.parent)
    kind = command.removesuffix(" in workers")
    with RunFolder(tmp_path / "run", kind) as first:
        first.begin()
        before = contents(tmp_path / "run")
        capsys.readouterr()
        more = () if kind == command else ("--workers", "2")
        assert run(*COMMANDS[kind](tmp_path / "run", saved), *more) == 2
        *_, error = capsys.readouterr().err.strip().splitlines()
        assert error.startswith(f"medrobust: {tmp_path / 'run'} is in use by process {os.getpid()} on ")
        assert contents(tmp_path / "run") == before


def test_the_lock_goes_with_a_killed_process(tmp_path):
    code = (
        "import sys, time; from medrobust.run_folder import RunFolder; r = RunFolder(sys.argv[1], 'audit'); "
        "r.begin(); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "run")], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(InUseError, match=f"in use by process {process.pid} on "):
            RunFolder(tmp_path / "run", "audit").__enter__()
    finally:
        process.kill()
        process.communicate()
    with RunFolder(tmp_path / "run", "audit") as folder:
        folder.write_text("results.json", "{}")


# -- what is saved from Python -------------------------------------------------------------------------------


def test_a_model_does_not_overwrite_files_of_others(saved, tmp_path):
    clf = mr.Classifier.load(saved)
    clf.save(tmp_path / "again")
    assert contents(clf.save(tmp_path / "again")) == contents(saved)
    for name, content in (("model.json", b'{"name": "mine"}'), ("model.safetensors", b"mine")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(InputError, match=f"{name} is there and is no model of medrobust; it is not overwritten"):
            clf.save(folder)
        assert contents(folder) == {name: content}


def test_a_perturbation_does_not_overwrite_files_of_others_and_follows_no_link(tmp_path):
    v = Universal(torch.zeros(1, 4, 4), mr.Linf(0.1), mr.Untargeted())
    weights = tmp_path / "weights.safetensors"
    save_file({"x": np.ones(3)}, weights)
    before = weights.read_bytes()
    with pytest.raises(InputError, match="is no universal perturbation of medrobust"):
        v.save(weights)
    link = tmp_path / "v.safetensors"
    link.symlink_to(weights)
    v.save(link)
    v.save(link)
    assert weights.read_bytes() == before
    assert not link.is_symlink()
    assert not Universal.load(link).nonzero
