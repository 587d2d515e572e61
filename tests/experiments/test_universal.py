"""One change for every image in an audit: numbers follow from what was made, no image is on both sides, resuming."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from medrobust import Classifier, report, stats
from medrobust import data as data_room
from medrobust.experiments import ask, audit
from medrobust.experiments.system import System, assemble
from medrobust.experiments.universal_images import craft_split
from medrobust.progress import NoProgress
from medrobust.run_folder import RunFolder
from tests.data_files import cohort

pytestmark = pytest.mark.slow  # audits with universal perturbations

QUICK = {"model": "small_cnn", "epochs": 2, "attacks": ("fgsm",), "eps": (8 / 255,)}
NETWORKS = """
import numpy as np
import torch

class Linear(torch.nn.Module):
    def __init__(self, outputs, size):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(outputs, size * size, generator=g))

    def forward(self, x):
        return (x - 0.5).flatten(1) @ self.weight.T

class Flat(Linear):  # its answer moves in steps, and no part of it is left in torch
    def forward(self, x):
        steps = np.floor(8 * x.detach().numpy().mean((1, 2, 3)))
        return torch.tensor(np.stack([steps, 3.5 - steps], 1), dtype=x.dtype) + 0 * self.weight.sum()

def linear(classes, size):
    return Linear(classes, size)

def flat(classes, size):
    return Flat(classes, size)
"""


def spec(**changes: Any):
    return ask(data="phantom:chest@32:n=120", **QUICK | changes).model_copy(update={"limit": 6})


def rows(told: dict[str, Any]) -> dict[tuple[str, ...], dict[str, Any]]:
    """By attack ("sgd" or a random one), metric and target; those by class apart."""
    mine = [r for r in told["rows"] if universal(r) and "class_name" not in r]
    return {(r["attack"], r["metric"], *([r["target"]] if "target" in r else [])): r for r in mine}


def universal(row: dict[str, Any]) -> bool:
    return row["kind"] == "universal" or row["attack"].startswith("random ")


def subject(folder: Path, asked: Any) -> System:
    """What is audited in a run folder, or would be."""
    with RunFolder(folder, None) as run:
        return assemble(asked, run, NoProgress(), "cpu")


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A folder with networks of the user's own; seen from inside."""
    (tmp_path / "networks_of_one_change.py").write_text(NETWORKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("networks_of_one_change", None)


# -- what the rows are ---------------------------------------------------------------------------------------


def test_the_rows_follow_from_the_matrices(whole, told):
    by, about = rows(told), told["conditions"]["universal"]
    matrices = load_file(whole / "figures.safetensors")["universal.confusion"]
    assert [g["target"] for g in about["goals"]] == [None, 0, 1]
    assert (matrices.sum((1, 2)) == about["n_judged"]).all()
    # the same images are judged, whatever the goal
    assert (matrices.sum(2) == matrices[0].sum(1)).all()
    n = about["n_judged"]
    assert by["sgd", "fooling_rate"]["value"] == pytest.approx(1 - matrices[0].trace() / n)
    assert by["sgd", "fooling_cap"]["value"] == pytest.approx(1 - matrices[0].sum(1).min() / n)
    for k, name in enumerate(("normal", "pneumonia")):
        there, before = matrices[1 + k].sum(0)[k], matrices[0].sum(1)[k]
        assert by["sgd", "targeted_success", name]["value"] == pytest.approx(there / n)
        assert by["sgd", "targeted_base", name]["value"] == pytest.approx(before / n)
        new = by["sgd", "targeted_success_new", name]
        assert new["n"] == n - before
        stayed = matrices[1 + k][k, k]
        assert new["value"] == pytest.approx((there - stayed) / (n - before))
    for r in by.values():
        assert r["low"] <= r["value"] <= r["high"]
        assert r["eps"] == about["eps"]
    assert {name for name, *_ in by} == {"sgd", *about["controls"]}
    assert {r["kind"] for r in by.values()} == {"universal", "control"}


def test_the_perturbations_do_again_what_the_rows_say(whole, told):
    """From the kept perturbation, the saved model and the images alone; on images that it was not made from."""
    about, model = told["conditions"]["universal"], Classifier.load(whole / "model")
    apart = craft_split(subject(whole, spec()), 0)
    assert apart is not None
    assert not set(apart.craft.ids) & set(apart.judged.ids)
    assert set(apart.craft.split_of) == {"train"}
    assert set(apart.judged.split_of) == {"test"}
    assert (len(apart.craft), len(apart.judged)) == (about["n_made"], about["n_judged"])
    images, labels = apart.judged.tensors()
    found = {}
    for path in (whole / "cells").glob("*/rows.json"):
        cell = json.loads(path.read_text())
        if cell["spec"]["kind"] == "universal":
            delta = torch.from_numpy(load_file(path.parent / "arrays.safetensors")["delta"])
            assert float(delta.abs().max()) <= about["eps"] + 1e-6
            found[cell["spec"]["target"]] = model.predict((images + delta).clamp(0, 1))
    assert set(found) == {None, 0, 1}
    by, clean = rows(told), model.predict(images)
    assert by["sgd", "fooling_rate"]["value"] == pytest.approx((found[None] != clean).float().mean().item())
    assert by["sgd", "accuracy_before"]["value"] == pytest.approx((clean == labels).float().mean().item())
    assert by["sgd", "accuracy_after"]["value"] == pytest.approx((found[None] == labels).float().mean().item())
    assert by["sgd", "targeted_success", "normal"]["value"] == pytest.approx((found[0] == 0).float().mean().item())


def test_the_pictures_are_images_of_the_run_with_the_change_on_them(whole, told):
    arrays, examples = load_file(whole / "figures.safetensors"), told["conditions"]["universal"]["examples"]
    clean, delta, attacked = (arrays[f"universal.{name}"] for name in ("clean", "delta", "attacked"))
    assert len(examples) == len(clean) == len(delta) == len(attacked) == 2
    assert [e["target"] for e in examples] == [None, 0]  # towards the healthy class: a disease that is hidden
    np.testing.assert_array_equal(attacked, np.clip(clean + delta, 0, 1))
    data = data_room.load("phantom:chest@32:n=120")
    for e, image in zip(examples, clean, strict=True):
        at = data.ids.index(e["id"])
        np.testing.assert_array_equal(data.images([at])[0].numpy(), image)
        assert e["label"] == data.labels[at]


def test_it_is_stronger_than_chance_on_a_linear_network(home):
    """The same direction moves every image of a linear network; random changes average out."""
    asked = ask(
        data=f"csv:{cohort(home / 'scans', n=60, patients=20)}",
        model="networks_of_one_change:linear",
        attacks=("fgsm",),
        eps=(1 / 255,),
    )
    told = audit(asked, home / "run", device="cpu")
    by = rows(told)
    for name in ("ill", "well"):
        assert by["sgd", "targeted_success_new", name]["value"] > 0.5
    chance = max(r["high"] for (name, metric, *_), r in by.items() if name != "sgd" and metric == "fooling_rate")
    assert by["sgd", "fooling_rate"]["value"] > chance


# -- which images --------------------------------------------------------------------------------------------


def test_where_all_images_are_test_images_half_of_them_are_judged_and_no_patient_is_on_both_sides(home):
    asked = ask(data=f"csv:{cohort(home / 'scans', n=60, patients=20)}", model="networks_of_one_change:linear")
    whole = subject(home / "run", asked)
    assert len(whole.test) == len(whole.data) == 60
    apart = craft_split(whole, 0)
    assert apart is not None
    assert "test images" in apart.origin
    assert not set(apart.craft.patients) & set(apart.judged.patients)
    assert sorted((*apart.craft.ids, *apart.judged.ids)) == sorted(whole.data.ids)
    assert 24 <= len(apart.judged) <= 36
    assert set(apart.judged.labels) == set(whole.data.labels)
    again = craft_split(whole, 0)
    assert again is not None
    assert again.judged.ids == apart.judged.ids


# -- again, and without --------------------------------------------------------------------------------------


def test_lost_cells_are_made_again_to_the_bit_and_finished_ones_are_not(whole):
    import shutil

    before = (whole / "results.json").read_bytes(), (whole / "figures.safetensors").read_bytes()
    kept = {p: p.stat().st_mtime_ns for p in (whole / "cells").rglob("*")}
    lost = [
        p.parent
        for p in (whole / "cells").glob("*/rows.json")
        if json.loads(p.read_text())["spec"]["kind"] in ("universal", "universal random")
    ]
    assert len(lost) == 4
    for missing in ([], lost[:1], lost[1:]):
        for path in missing:
            shutil.rmtree(path)
        audit(spec(), whole, device="cpu")
        first, second = (json.loads(t) for t in (before[0], (whole / "results.json").read_bytes()))
        assert first.pop("seconds").keys() == second.pop("seconds").keys()
        assert first.pop("run")["id"] == second.pop("run")["id"]  # with the time at which it finished
        assert second == first
        assert (whole / "figures.safetensors").read_bytes() == before[1]
        now = {p: p.stat().st_mtime_ns for p in (whole / "cells").rglob("*")}
        assert {p for p in now if kept.get(p) != now[p]} == {p for path in missing for p in (path, *path.iterdir())}
        kept = now


def test_without_it_nothing_else_changes(whole, told, tmp_path):
    asked = spec(model=str(whole / "model"), universal=False).model_copy(update={"epochs": None})
    plain = audit(asked, tmp_path / "plain", device="cpu")
    assert plain["conditions"]["universal"] is None
    assert not rows(plain)
    others = [r | {"model": ""} for r in told["rows"] if not universal(r)]
    assert [r | {"model": ""} for r in plain["rows"]] == others
    assert plain["checks"] == told["checks"]
    text = report.write(tmp_path / "plain").read_text("utf-8")
    section = text[text.index('<section id="universal"') :]
    assert "Not measured in this run." in section[: section.index("</section>")]
    assert "One change for all images" not in text[: text.index("<nav")]
    assert re.search(r"Not tested in this run</dt>.*?One change for all images", text)


def test_a_folder_of_an_older_version_goes_on(whole, tmp_path):
    """Its spec.json does not know the question."""
    import shutil

    folder = shutil.copytree(whole, tmp_path / "old")
    old = json.loads((folder / "spec.json").read_text())
    del old["config"]["universal"]
    (folder / "spec.json").write_text(json.dumps(old))
    audit(spec(), folder, device="cpu")
    assert json.loads((folder / "spec.json").read_text())["config"]["universal"] is True


# -- what proves nothing -------------------------------------------------------------------------------------


def test_no_gradient_reads_inconclusive_not_robust(home):
    asked = ask(
        data=f"csv:{cohort(home / 'scans', n=40, patients=40)}",
        model="networks_of_one_change:flat",
        attacks=("fgsm",),
        eps=(1 / 255,),
    )
    told = audit(asked, home / "run", device="cpu")
    mine = [r for r in told["rows"] if r["kind"] == "universal"]
    assert {r["status"] for r in mine} == {"inconclusive"}
    assert any("zero" in r["note"] for r in mine)
    text = report.write(home / "run").read_text("utf-8")
    section = text[text.index('<section id="universal"') :]
    section = section[: section.index("</section>")]
    assert '<p class="doubt">' in section
    assert "no sign of strength" in section
    assert 'class="flag">inconclusive' in section


def test_many_classes_are_not_targeted_one_by_one(home):
    table = home / "scans" / "labels.csv"
    cohort(home / "scans", n=60, patients=60)
    lines = table.read_text().splitlines()
    at = lines[0].split(",").index("label")
    cells = [line.split(",") for line in lines[1:]]
    for i, line in enumerate(cells):
        line[at] = f"kind{i % 5}"
    table.write_text("\n".join([lines[0], *(",".join(c) for c in cells)]) + "\n")
    asked = ask(data=f"csv:{table}", model="networks_of_one_change:linear", attacks=("fgsm",), eps=(1 / 255,))
    told = audit(asked, home / "run", device="cpu")
    assert [g["target"] for g in told["conditions"]["universal"]["goals"]] == [None]
    assert not any(metric.startswith("targeted") for _, metric, *_ in rows(told))
    assert load_file(home / "run" / "figures.safetensors")["universal.confusion"].shape == (1, 5, 5)


def test_intervals_know_that_a_patient_has_several_images(home):
    asked = ask(
        data=f"csv:{cohort(home / 'scans', n=60, patients=12)}",
        model="networks_of_one_change:linear",
        attacks=("fgsm",),
        eps=(1 / 255,),
    )
    told = audit(asked, home / "run", device="cpu")
    apart = craft_split(subject(home / "run", asked), 0)
    assert apart is not None
    whole = subject(home / "run", asked)
    right = whole.classifier.predict(apart.judged.tensors()[0]).numpy() == apart.judged.labels
    row = rows(told)["sgd", "accuracy_before"]
    expected = stats.proportion(right, apart.judged.patients)
    assert tuple(row[k] for k in ("value", "low", "high", "n")) == pytest.approx(tuple(expected))
