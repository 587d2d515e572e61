"""Detectors in an audit: the rows follow from what is kept, resuming, tiny sets finish, and the report says it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from medrobust.experiments import ask, audit
from medrobust.experiments.auditing import DETECTION
from tests import report_runs
from tests.results_files import measured

pytestmark = pytest.mark.slow  # audits with detectors

NAMES = DETECTION.detectors
LEAD = NAMES[0]
QUICK = {"model": "small_cnn", "attacks": ("pgd:steps=5",), "universal": False, "explain": False}


def spec(n: int = 600, limit: int = 80, **changes: Any):
    asked = {"data": f"phantom:chest@32:n={n}", "epochs": 4, "eps": (4 / 255, 8 / 255, 16 / 255)}
    return ask(**QUICK | asked | changes).model_copy(update={"limit": limit})


def rows(told: dict[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    """By kind, attack, metric and detector."""
    kinds = ("detector", "evasion")
    return {(r["kind"], r["attack"], r["metric"], r["detector"]): r for r in told["rows"] if r["kind"] in kinds}


def section(folder: Path) -> str:
    return report_runs.section(folder, "detection")


def test_the_rows_are_there_and_follow_from_what_is_kept(whole, told):
    by, about, evasion = rows(told), told["conditions"]["detection"], told["conditions"]["evasion"]
    (size,) = about["sizes"]
    assert tuple(about["detectors"]) == NAMES
    pgd, metrics = "pgd:steps=5", ("fooled", "detected", "success")
    seen = {("detector", *k, n) for k in ((pgd, "auroc"), (pgd, "alarms"), ("none", "alarms")) for n in NAMES}
    beside = {("evasion", k, m, n) for k in (pgd, "selective") for m in metrics for n in NAMES}
    assert set(by) >= seen | beside
    assert evasion["name"] == "selective"
    for name in NAMES:
        assert by["detector", pgd, "alarms", name]["n"] == size["n_attacked"][pgd]
        assert by["detector", "none", "alarms", name]["n"] == size["n_clean"]
    for r in by.values():
        assert r["value"] is None or r["low"] <= r["value"] <= r["high"]
        assert r["eps"] == size["eps"] == evasion["eps"]
    for name in NAMES:
        for attack in (pgd, "selective"):
            fooled, seen, success = (by["evasion", attack, m, name] for m in metrics)
            assert "at_fpr" not in fooled
            assert seen["at_fpr"] == success["at_fpr"] == 0.05
            assert fooled["n"] == success["n"] == 24
            assert seen["n"] == round(24 * fooled["value"])
            assert success["value"] == pytest.approx(fooled["value"] * (1 - (seen["value"] or 0)))
        # the twins that both kinds of row are about are the same: what was seen of all is seen of some
        assert by["evasion", pgd, "fooled", name]["value"] == by["evasion", pgd, "fooled", LEAD]["value"]
    found = [json.loads(p.read_text()) | {"at": p.parent} for p in (whole / "cells").glob("*/rows.json")]
    cells = {c["spec"]["name"]: c["at"] for c in found if c["spec"]["kind"] == "evade"}
    assert len(cells) == len(NAMES)
    for name in NAMES:
        past = load_file(cells[name] / "arrays.safetensors")["evaded"]
        assert by["evasion", "selective", "success", name]["value"] == pytest.approx(past.mean())


def test_lost_cells_are_made_again_to_the_bit(whole, told):
    kinds = ("detector", "evade", "features", "attacked")
    for wanted in (kinds[:2], kinds[1:]):
        for path in list((whole / "cells").glob("*/rows.json")):
            if json.loads(path.read_text())["spec"]["kind"] in wanted:
                shutil.rmtree(path.parent)
        audit(spec(), whole, device="cpu")
        again = json.loads((whole / "results.json").read_text())
        assert measured(again) == measured(told)
        assert again["run"] == told["run"] | {"finished": again["run"]["finished"]}


def test_the_report_says_it_and_an_older_run_that_it_was_not_measured(whole, told, tmp_path):
    said = section(whole)
    assert "raises an alarm on" in said
    assert "an attacker who knows the detector (Selective PGD" in said
    assert "Mahalanobis detector, which was chosen before anything was measured" in said
    evaded = rows(told)["evasion", "selective", "success", LEAD]
    assert f"n = {evaded['n']})" in said
    assert said.count("Selective PGD ") >= len(NAMES)
    assert " nan" not in said.lower()
    assert "Not measured in this run." in section(report_runs.make(tmp_path / "old", "audit"))


def test_a_tiny_set_finishes_and_is_inconclusive(tmp_path):
    told = audit(spec(n=120, limit=6, epochs=1), tmp_path / "run", device="cpu")
    by = rows(told)
    assert len(by) == 9
    assert {(r["status"], r["value"]) for r in by.values()} == {("inconclusive", None)}
    assert all("needed" in r["note"] for r in by.values())
    said = section(tmp_path / "run")
    assert "Inconclusive:" in said
    assert "no sign that it can, or cannot" in said


def test_without_it_there_are_no_rows(tmp_path):
    told = audit(spec(n=120, limit=6, epochs=1, detect=False), tmp_path / "run", device="cpu")
    assert "detection" not in told["conditions"]
    assert not rows(told)
    assert "Not measured in this run." in section(tmp_path / "run")
