"""Explanations in an audit: the rows follow from what is kept, resuming, tiny sets finish, and the report says it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import stats as scipy_stats

from medrobust.experiments import ask, audit
from medrobust.experiments.explanation_config import IN_AUDIT
from medrobust.report.why_words import signed
from tests import report_runs
from tests.results_files import edit, measured

pytestmark = pytest.mark.slow  # audits with explanations

NAMES, GRID, SURFACES = IN_AUDIT.measures, IN_AUDIT.grid, IN_AUDIT.surfaces
QUICK = {"model": "small_cnn", "attacks": ("pgd:steps=5",), "universal": False, "detect": False}


def spec(n: int = 600, limit: int = 60, **changes: Any):
    asked = {"data": f"phantom:chest@32:n={n}", "epochs": 8, "eps": (4 / 255, 8 / 255, 16 / 255)}
    return ask(**QUICK | asked | changes).model_copy(update={"limit": limit})


def rows(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By the names that values have in the cells: metric, map, and on which images."""
    found = {}
    for r in told["rows"]:
        if r["kind"] == "explanation" and r["metric"] != "loss":
            measure = (r["metric"] in NAMES or r["metric"] == "rank_correlation") and r["when"] == "clean"
            name = "-".join(filter(None, (r["metric"], r.get("map"))))
            # of untouched images the share of pixels is a measure, and stands beside that of attacked ones
            found.setdefault(name if measure else f"{name}.{r['when']}", r)
    return found


def section(folder: Path) -> str:
    return report_runs.section(folder, "why")


def kept(folder: Path, what: str) -> dict[str, np.ndarray]:
    for path in (folder / "cells").glob("*/rows.json"):
        found = json.loads(path.read_text())["spec"]
        if (found.get("kind"), found.get("what")) == ("explain", what):
            return load_file(path.parent / "arrays.safetensors")
    raise AssertionError(f"no cell of {what}")


def test_the_rows_are_there_and_follow_from_what_is_kept(whole, told):
    by, about, measures = rows(told), told["conditions"]["explained"]["0"], kept(whole, "measures")
    assert set(NAMES) < set(by)
    for name in NAMES:
        assert by[name]["value"] == pytest.approx(np.median(measures[name]))
        assert by[name]["n"] == about["n"] == len(measures[name])
    for r in by.values():
        assert r["low"] <= r["value"] <= r["high"]
        assert r["eps"] == (0 if r["when"] == "clean" else about["eps"])
    maps = kept(whole, "maps")
    assert by["cam-shift.change"]["n"] <= about["reached"]
    assert by["cam-shift.noise"]["value"] == pytest.approx(np.nanmedian(maps["cam-shift.noise"]))
    assert by["lesion-point-cam.clean"]["value"] == pytest.approx(np.nanmean(maps["lesion-point-cam.clean"]))
    changes = {name for name in by if name.endswith(".change")}
    assert set(by) - set(NAMES) - set(maps) - changes <= {"rank_correlation"}


def test_the_estimate_is_held_against_the_eps_star_of_the_same_images(whole, told):
    # both in the order of the images that the part has chosen
    chosen = {i: k for k, i in enumerate(_ids(whole))}
    min_eps = load_file(whole / "figures.safetensors")["min_eps.worst"]
    order = [chosen[i] for i in told_ids(told, whole)]
    linear = kept(whole, "measures")["linear-eps"]
    found = scipy_stats.spearmanr(linear, min_eps[order]).statistic
    assert rows(told)["rank_correlation"]["value"] == pytest.approx(found, abs=1e-6)


def _ids(folder: Path) -> tuple[str, ...]:
    """The attacked images, as the audit orders them."""
    from medrobust import data

    return data.load(spec().data).split("test").sample(60, 0).ids


def told_ids(told: dict[str, Any], folder: Path) -> tuple[str, ...]:
    """The images that were looked at: those read correctly, in the order of ``AdversarialPairs``."""
    import medrobust as mr
    from medrobust import data
    from medrobust.experiments.adversarial_pairs import SHARD, AdversarialPairs
    from medrobust.store import Store

    part = data.load(spec().data).split("test").sample(60, 0)
    return AdversarialPairs(Store(folder), mr.Classifier.load(folder / "model"), part, limit=SHARD, seed=0).part.ids


def test_the_figures_are_those_of_the_model(whole, told):
    arrays, about = load_file(whole / "figures.safetensors"), told["conditions"]["explained"]["0"]
    planes = arrays["explain.0.landscape.random"]
    assert planes.shape == (SURFACES, len(GRID), len(GRID))
    # along the sign of the gradient the loss rises faster than along random signs
    assert np.median(planes[:, 2, 0]) > np.median(planes[:, 0, 2])
    few = len(about["gallery"]["ids"])
    assert 0 < few <= 3
    for name in ("clean", "gradient-attacked", "cam"):
        assert len(arrays[f"explain.0.gallery.{name}"]) == few
    change = arrays["explain.0.gallery.attacked"] - arrays["explain.0.gallery.clean"]
    assert 0 < np.abs(change).max() <= about["eps"] + 1e-6


def test_lost_cells_are_made_again_to_the_bit(whole, told):
    for path in list((whole / "cells").glob("*/rows.json")):
        if json.loads(path.read_text())["spec"]["kind"] in ("explain", "attacked"):
            shutil.rmtree(path.parent)
    audit(spec(), whole, device="cpu")
    again = json.loads((whole / "results.json").read_text())
    assert measured(again) == measured(told)
    assert again["run"] == told["run"] | {"finished": again["run"]["finished"]}


def test_the_report_says_it_and_an_older_run_that_it_was_not_measured(whole, told, tmp_path):
    said, by = section(whole), rows(told)
    assert f"leads by {signed(by['margin']['value'])} (" in said
    assert "The brightest point of Grad-CAM" in said
    assert "gradient after" in said
    assert " nan" not in said.lower()
    assert "Not measured in this run." in section(report_runs.make(tmp_path / "old", "audit"))


def test_where_no_number_counts_the_reason_stands_in_its_place(whole, told, tmp_path):
    """As for a network that guesses: dashes alone would not say why."""
    copy = shutil.copytree(whole, tmp_path / "copy")
    doubt = {"status": "inconclusive", "note": "it guesses"}
    doubtful = [r | doubt if r["kind"] == "explanation" else r for r in told["rows"]]
    edit(copy, told | {"rows": doubtful})
    said = section(copy)
    assert "Inconclusive: it guesses." in said
    assert "leads by" not in said


def test_a_tiny_set_finishes_and_is_inconclusive(tmp_path):
    found = audit(spec(n=120, limit=6, epochs=1), tmp_path / "run", device="cpu")
    by = rows(found)
    assert {(r["status"], r["value"]) for r in by.values()} == {("inconclusive", None)}
    assert "needed" in by["slope-l1"]["note"]
    assert "Inconclusive:" in section(tmp_path / "run")


def test_without_it_there_are_no_rows(tmp_path):
    found = audit(spec(n=120, limit=6, epochs=1, explain=False, stored=False), tmp_path / "run", device="cpu")
    assert "explained" not in found["conditions"]
    assert not rows(found)
    assert "Not measured in this run." in section(tmp_path / "run")


def test_small_numbers_are_written_as_people_write_them():
    assert signed(0.0000123) == "1.2·10⁻⁵"
    assert signed(-0.5) == "−0.5"
    assert signed(0.0) == "0"
    assert signed(0.00999) == "0.00999"
