"""An audit whose steps are done by workers: the same results, and the same after kills."""

from __future__ import annotations

import json
import threading

import pytest

import medrobust as mr
from medrobust import json_files, training
from medrobust.atomic import DiskError
from medrobust.experiments.context import Step, steps_by_name
from medrobust.experiments.suite import _absolute, _beside
from medrobust.grid import Study
from medrobust.runner import steps as runner_steps
from medrobust.store import Cell, Store
from tests.cli.test_main import run

pytestmark = pytest.mark.loopback

DATA = "phantom:chest@32:n=160"
ASKED = ("--attacks", "fgsm,pgd:steps=3", "--eps", "4/255,16/255", "--limit", "12", "--auto", "none", "--device", "cpu")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    training.fit(mr.data.load(DATA), "small_cnn", epochs=2, seed=0, device="cpu").save(folder)
    return folder


def results(folder):
    found = json.loads((folder / "results.json").read_text())
    return json_files.digest(found), found


@pytest.mark.slow
def test_workers_give_the_results_of_one_process(model, tmp_path):
    common = ("audit", "--data", DATA, "--model", model, *ASKED)
    assert run(*common, "--out", tmp_path / "one") == 0
    assert run(*common, "--workers", "2", "--out", tmp_path / "two") == 0
    (first, alone), (second, shared) = results(tmp_path / "one"), results(tmp_path / "two")
    assert alone["rows"] == shared["rows"]
    assert first == second
    assert shared["conditions"]["pending"] == []
    # cells are kept: they hold digests of where things lie, no paths
    assert not [p for p in (tmp_path / "two" / "cells").rglob("rows.json") if str(model) in p.read_text()]
    # what is there is not computed again, by whomever
    assert run(*common, "--workers", "1", "--out", tmp_path / "two") == 0
    assert results(tmp_path / "two")[1] == shared


def test_a_step_is_planned_after_what_it_needs_and_finished_ones_are_known(tmp_path):
    done = []
    made = {
        name: Step(name, lambda name=name: done.append(name), needs)
        for name, needs in {"a": (), "b": ("a",), "c": ("a", "b", "not in this audit")}.items()
    }
    steps = steps_by_name([_Fixed(list(made.values()))])
    assert steps["c"].needs == ("a", "b")
    plan = runner_steps.plan(steps, {"kind": "audit"}, tmp_path, "audit")
    keys = {cell.labels["step"]: cell for cell in plan.cells.values()}
    assert set(keys["c"].needs) == {keys["a"].key, keys["b"].key}
    assert isinstance(plan.study, Study)
    Store(tmp_path).put(keys["a"].ticket["spec"], Cell({"rows": []}, {}, 0.0))
    again = runner_steps.plan(steps, {"kind": "audit"}, tmp_path, "audit")
    assert [cell.labels["step"] for cell in again.left] == ["b", "c"]


def test_reports_are_written_beside_the_steps_in_their_order():
    """Workers are not kept waiting, and a report that cannot be written ends the run."""
    written, done = [], threading.Event()

    def report(step):
        assert done.wait(10)  # the steps go on meanwhile
        written.append(step)

    def steps(finished):
        for step in "abc":
            finished(step)
        done.set()

    _beside(steps, report)
    assert written == ["a", "b", "c"]

    def full(step):
        raise DiskError(f"no room for {step}")

    with pytest.raises(DiskError, match="no room for a"):
        _beside(steps, full)


def test_a_ticket_is_the_same_from_another_folder(tmp_path, monkeypatch):
    """A worker may have been started elsewhere: files and folders are named by their absolute paths."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.csv").write_text("file,label\n")
    (tmp_path / "net").mkdir()
    assert _absolute("csv:labels.csv") == f"csv:{tmp_path}/labels.csv"
    assert _absolute("net") == f"{tmp_path}/net"
    assert [_absolute(t) for t in ("phantom:chest@32", "vendor:net2", "resnet18", "", None)] == [
        "phantom:chest@32",
        "vendor:net2",
        "resnet18",
        "",
        None,
    ]


class _Fixed:
    """An experiment of given steps."""

    name = "fixed"

    def __init__(self, steps):
        self.list = steps

    def steps(self):
        return self.list
