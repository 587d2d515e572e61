"""An audit that is still under way: its first page, and where the terminal says it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medrobust.experiments import AuditSpec, audit, suite
from medrobust.experiments.context import Experiment
from medrobust.report import first_page
from medrobust.results import Kind
from tests import odd_data
from tests.commands import run

ALONE = {"universal": False, "detect": False, "explain": False, "stored": False, "corruptions": "", "changes": ()}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    odd_data.network().save(tmp_path / "net")
    odd_data.table(tmp_path / "scans", [0, 1] * 10, rest=0)
    return tmp_path


def spec(home: Path) -> AuditSpec:
    data = {"data": f"csv:{home / 'scans' / 'labels.csv'}", "model": str(home / "net")}
    return AuditSpec(**data, attacks=("fgsm", "bim:steps=3"), eps=(1 / 255, 8 / 255), limit=10, **ALONE)


def test_the_first_page_has_the_worst_case_of_the_attacks_done_so_far(home, monkeypatch):
    monkeypatch.setattr(suite, "FIRST", -1.0)
    out, written = home / "run", list[dict[str, Any]]()

    def keep(pending):
        written.append(json.loads((out / "results.json").read_text()))
        assert written[-1]["conditions"]["pending"] == list(pending)

    audit(spec(home), out, device="cpu", written=keep)
    first, last = written[0], written[-1]
    assert {"robustness", "sanity", "headline"} <= set(first["conditions"]["pending"])
    assert not any(r["kind"] == Kind.CONTROL for r in first["rows"])  # noise comes after the sweeps
    assert last["conditions"]["pending"] == []

    def worst(results):
        return {r["eps"]: r["value"] for r in results["rows"] if (r["kind"], r["metric"]) == (Kind.WORST, "accuracy")}

    def of_attack(results, name):
        return {r["eps"]: r["value"] for r in results["rows"] if (r["attack"], r["metric"]) == (name, "accuracy")}

    assert set(worst(first)) == set(worst(last)) == {1 / 255, 8 / 255}
    for eps, value in worst(first).items():
        assert value <= min(of_attack(first, "fgsm")[eps], of_attack(first, "bim:steps=3")[eps])
        assert worst(last)[eps] <= value  # the ensemble came after
    assert any(r["kind"] == Kind.CLEAN and r["metric"] == "accuracy" for r in first["rows"])


def test_results_that_are_written_early_change_no_number(home, monkeypatch):
    audit(spec(home), home / "late", device="cpu")
    monkeypatch.setattr(suite, "FIRST", -1.0)
    monkeypatch.setattr(suite, "OFTEN", -1.0)
    audit(spec(home), home / "often", device="cpu")
    late, often = (json.loads((home / name / "results.json").read_text()) for name in ("late", "often"))
    for part in ("rows", "checks", "examples"):
        assert late[part] == often[part]


def test_a_finished_run_is_not_replaced_by_a_first_page(home, monkeypatch):
    audit(spec(home), home / "run", device="cpu")
    whole = (home / "run" / "results.json").read_bytes()
    monkeypatch.setattr(suite, "FIRST", -1.0)
    monkeypatch.setattr(suite, "OFTEN", -1.0)
    pending = list[list[str]]()
    audit(spec(home), home / "run", device="cpu", written=lambda missing: pending.append(list(missing)))
    assert pending == [[]]
    assert (home / "run" / "results.json").read_bytes() == whole


def test_the_terminal_says_once_where_the_first_page_is_and_the_page_what_is_missing(home, monkeypatch, capsys):
    monkeypatch.setattr(suite, "FIRST", -1.0)
    monkeypatch.setattr(suite, "OFTEN", -1.0)
    from medrobust import report

    pages, write = [], report.write

    def keep(folder, **options):
        page = write(folder, **options)
        pages.append(page.read_text())
        return page

    monkeypatch.setattr(report, "write", keep)
    off = ("--no-universal", "--no-detect", "--no-explain", "--no-stored", "--corruptions", "none", "--changes", "none")
    data = ("--data", f"csv:{home / 'scans' / 'labels.csv'}", "--model", home / "net", "--device", "cpu")
    attacks = ("--attacks", "fgsm,bim:steps=3", "--eps", "1/255,8/255", "--limit", "10")
    assert run("audit", *data, *attacks, *off, "--out", home / "run") == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "first page" in line]
    assert len(said) == 1
    assert str(home / "run" / "report.html") in said[0]
    assert "sanity checks of the attacks" in said[0]
    assert "This run is not finished" in pages[0]
    assert "Still to come: attacks at every size, sanity checks of the attacks, attacks without gradients" in pages[0]
    assert "further ones can only lower it" in pages[0]
    assert "of those asked so far" in pages[0]
    assert "This run is not finished" not in pages[-1]
    assert "so far" not in pages[-1]


def test_every_experiment_that_can_be_missing_has_words():
    def below(kind: type[Experiment]) -> set[type[Experiment]]:
        return {kind, *(k for direct in kind.__subclasses__() for k in below(direct))}

    names = {
        kind.name for kind in below(Experiment) if kind.__module__.startswith("medrobust.") and "name" in vars(kind)
    }
    assert len(names) > 15
    assert names - {"not covered"} <= set(first_page.TO_COME)
