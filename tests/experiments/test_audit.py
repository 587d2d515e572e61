"""The main job from end to end on small data: what results.json promises, resuming, killing, leaving out."""

from __future__ import annotations

import contextlib
import csv
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import medrobust as mr
from medrobust import Classifier, private_names, stats
from medrobust.cli.audit import summary
from medrobust.criteria.beforehand import BY_CLASS, CLEAN, FURTHER, KINDS_BY_COLUMN, OVER_SIZES
from medrobust.experiments import context
from medrobust.report import findings, headline
from medrobust.report.run import read
from medrobust.results import FIXED, Kind
from medrobust.run_folder import LOCK, MARK
from tests.commands import run
from tests.data_files import cohort
from tests.processes import Process

PHANTOM = (
    "audit",
    "--data",
    "phantom:chest@32:n=120",
    "--model",
    "small_cnn",
    "--epochs",
    "2",
    "--attacks",
    "fgsm,bim:steps=4",
    "--eps",
    "0,1/255,8/255,32/255",
    "--limit",
    "12",
    "--device",
    "cpu",
)
ATTACKS = ("fgsm", "bim:steps=4", "worst")

ALONE = ("--no-universal", "--no-detect", "--no-explain", "--no-stored")

NETWORK = """
import torch

class Net(torch.nn.Module):
    def __init__(self, outputs, size):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.weight = torch.nn.Parameter(torch.randn(outputs, size * size, generator=g))

    def forward(self, x):
        return (x - 0.5).flatten(1) @ self.weight.T

def make(classes, size):
    return Net(classes, size)
"""


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


def accuracy(told: dict[str, Any], attack: str) -> dict[float, dict[str, Any]]:
    return {r["eps"]: r for r in told["rows"] if r["attack"] == attack and r["metric"] == "accuracy"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished audit of a network that was trained for it."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert run(*PHANTOM, "--out", folder) == 0
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Iterator[Path]:
    """A folder with a network of the user's own and images of which one is cut short."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "net_of_the_tests.py").write_text(NETWORK)
    table = cohort(folder / "scans", n=41, patients=12)
    damaged = table.parent / "007.png"
    damaged.write_bytes(damaged.read_bytes()[:-60])
    with contextlib.chdir(folder):
        yield folder


OWN = (
    "audit",
    "--data",
    "csv:scans/labels.csv",
    "--model",
    "net_of_the_tests:make",
    "--limit",
    "12",
    "--device",
    "cpu",
)


@pytest.fixture(scope="module")
def own(home) -> Path:
    assert run(*OWN, "--head", "logit", "--attacks", "bim:steps=3", "--eps", "1/255,16/255", "--out", home / "run") == 0
    return home / "run"


# -- what a finished run holds -------------------------------------------------------------------------------


def test_a_run_folder_holds_what_is_promised(whole):
    assert {p.name for p in whole.iterdir()} == {
        "manifest.json",
        "spec.json",
        "model",
        "cells",
        "results.json",
        "results.csv",
        "figures.safetensors",
        "report.html",
        "tables.tex",
        "summary.md",
        "model-card.md",
        MARK,
        LOCK,
    }
    assert {p.name for p in (whole / "model").iterdir()} == {"model.safetensors", "model.json"}
    assert not list((whole / "cells").glob(".*"))
    told = results(whole)
    assert set(told) == {"format", "kind", "conditions", "rows", "checks", "examples", "left_out", "seconds", "run"}
    assert told["conditions"]["pending"] == []
    about = told["conditions"]
    assert about["trained_here"] is True
    assert about["n_attacked"] == 12
    assert about["n_train"] + about["n_val"] + about["n_test"] == 120
    assert about["classes"] == ["normal", "pneumonia"]
    assert about["disease_classes"] == [1]
    assert list(about["attacks"]) == list(ATTACKS)
    assert all(re.fullmatch("[0-9a-f]{64}", about[k]) for k in ("data_digest", "model_digest"))
    assert {"python", "medrobust", "torch"} <= set(about["versions"])
    assert about["config"] == json.loads((whole / "spec.json").read_text())["config"]
    assert (whole / "report.html").stat().st_size > 10_000


def test_every_row_of_an_audit_may_be_required_before_it(whole):
    """The metrics and columns that are known beforehand: what is refused as unknown must be unknown."""
    grid = {Kind.CLEAN: (*CLEAN, *BY_CLASS), **dict.fromkeys((Kind.WORST, Kind.ATTACK), (*OVER_SIZES, *BY_CLASS))}
    for row in results(whole)["rows"]:
        if (kind := Kind(row["kind"])) != Kind.EXPLANATION:
            assert row["metric"] in (*FURTHER.get(kind, ()), *grid.get(kind, ())), (kind, row["metric"])
            assert all(kind in KINDS_BY_COLUMN[name] for name in row if name not in FIXED), row


def test_every_row_has_its_n_and_every_share_its_interval(whole):
    rows = results(whole)["rows"]
    numbers = ("value", "low", "high", "n", "status", "note")
    assert len({tuple((k, v) for k, v in r.items() if k not in numbers) for r in rows}) == len(rows)
    for r in rows:
        assert (r["value"] is None) == (r["n"] == 0) or r["note"].endswith(("above the grid", "not by one level"))
        assert (r["norm"], r["seed"], r["data"]) == ("Linf", 0, "phantom:chest@32")
        assert r["status"] in ("ok", "inconclusive")
        if r["n"] and r["metric"] in ("accuracy", "success", "flip", "sensitivity", "accuracy_saved"):
            assert 0 <= r["low"] <= r["value"] <= r["high"] <= 1
            assert r["low"] < r["high"]


def test_accuracy_begins_at_clean_and_never_rises(whole):
    told, arrays = results(whole), load_file(whole / "figures.safetensors")
    right = arrays["labels"] == arrays["clean_prediction"]
    grid = [0, 1 / 255, 8 / 255, 32 / 255]
    for attack in ATTACKS:
        curve = accuracy(told, attack)
        assert list(curve) == pytest.approx(grid)
        assert curve[0.0]["value"] == right.mean()
        assert all(b["value"] <= a["value"] for a, b in zip(curve.values(), list(curve.values())[1:], strict=False))
        min_eps = arrays[f"min_eps.{attack}"]
        assert ((min_eps == 0) == ~right).all()
        for e, r in curve.items():
            held = stats.proportion(min_eps > np.float32(e))
            assert (r["value"], r["low"], r["high"], r["n"]) == pytest.approx(tuple(held))
    assert accuracy(told, "worst")[32 / 255]["value"] < right.mean()


def test_the_worst_case_is_at_most_every_attack_and_each_image_s_minimum(whole):
    told, arrays = results(whole), load_file(whole / "figures.safetensors")
    worst = accuracy(told, "worst")
    for attack in ATTACKS[:2]:
        assert all(worst[e]["value"] <= r["value"] for e, r in accuracy(told, attack).items())
    each = np.stack([arrays[f"min_eps.{a}"] for a in ATTACKS[:2]]).min(0)
    # what the ensemble broke at the headline's size counts from there on; nothing else is changed
    size = np.float32(told["conditions"]["headline"]["eps"])
    found = arrays["min_eps.worst"] < each
    assert (arrays["min_eps.worst"][found] == size).all()
    assert np.array_equal(arrays["min_eps.worst"][~found], each[~found])
    alone = [r for r in told["rows"] if r["attack"] == "auto" and r["metric"] == "accuracy"]
    assert [r["eps"] for r in alone] == [told["conditions"]["headline"]["eps"]]
    assert worst[alone[0]["eps"]]["value"] <= alone[0]["value"]


def test_the_headline_says_what_made_it_and_what_it_cost(whole, capsys):
    told = results(whole)
    about = told["conditions"]["headline"]
    assert about["settings"] == "steps 15, queries 50"
    mine = {r.get("member", r["metric"]): r for r in told["rows"] if r["attack"] == "auto"}
    assert {"accuracy", "success", "gradients_per_image", "forwards_per_image"} <= set(mine)
    by = sum(round(mine[m]["value"] * mine["success"]["n"]) for m in mr.attacks.Auto.members)
    assert by == round(mine["success"]["value"] * mine["success"]["n"])
    assert mine["gradients_per_image"]["value"] <= 60
    page = (whole / "report.html").read_text()
    assert "The headline number" in page
    assert "an ensemble of attacks with nothing to tune" in page  # the glossary, whatever is concluded
    assert "no strength or weakness to measure" in page  # so that the first page does not lead with it
    paragraph = headline.paragraph(findings.find(read(whole)))
    assert paragraph is not None
    assert "an ensemble with nothing to tune" in paragraph.text
    summary(read(whole))
    assert "headline (inconclusive): at 8/255, Auto and the other attacks leave" in " ".join(
        capsys.readouterr().out.split()
    )


def test_what_an_attacker_without_gradients_reaches_is_told_by_queries(whole):
    told = results(whole)
    eps = told["conditions"]["headline"]["eps"]
    for name in ("square", "simba-dct"):
        mine = [r for r in told["rows"] if r["attack"] == name and r["metric"] == "success_at"]
        assert [r["queries"] for r in mine] == [10, 40, 80]
        assert all(r["eps"] == eps and r["n"] for r in mine)
        assert [r["value"] for r in mine] == sorted(r["value"] for r in mine)
    page = (whole / "report.html").read_text()
    assert "told only its scores" in page
    assert "behind an interface" in page


def test_flips_add_up_to_the_success(whole):
    told = results(whole)
    by = {(r["attack"], r["metric"], r["eps"], r.get("class_name")): r for r in told["rows"]}
    for attack in ATTACKS:
        for e in (8 / 255, 32 / 255):
            parts = [by[attack, "flip", e, name] for name in ("normal", "pneumonia")]
            flipped = sum(p["value"] * p["n"] for p in parts if p["value"] is not None)
            assert flipped == pytest.approx(
                by[attack, "success", e, None]["value"] * by[attack, "success", e, None]["n"]
            )


def test_the_clean_rows_follow_from_the_probabilities(whole):
    told, arrays = results(whole), load_file(whole / "figures.safetensors")
    labels, p = arrays["test_labels"], arrays["test_probability"]
    np.testing.assert_allclose(p.sum(1), 1, rtol=1e-5)
    by = {(r["metric"], r.get("class_name")): r for r in told["rows"] if r["kind"] == "clean"}
    by |= {metric: r for (metric, name), r in by.items() if name is None}
    right = p.argmax(1) == labels
    assert by["accuracy"]["value"] == pytest.approx(right.mean())
    assert by["balanced_accuracy"]["value"] == pytest.approx(np.mean([right[labels == k].mean() for k in (0, 1)]))
    assert by["auroc"]["value"] == pytest.approx(stats.auroc(p[:, 1], labels == 1).value)
    assert by["specificity", "normal"]["value"] == by["sensitivity", "pneumonia"]["value"]
    # the phantoms are 8-bit images: saving them changes nothing
    assert by["accuracy_saved"]["value"] == by["accuracy"]["value"]


def test_the_sanity_checks_were_asked_and_answer_in_words(whole):
    checks = results(whole)["checks"]
    assert {c["name"] for c in checks} == {
        "eps 0 equals clean",
        "success grows with eps",
        "success grows with steps, then settles",
        "a huge eps reaches 100 %",
        "random noise of the same size is weaker",
        "many steps are not weaker than one",
        "gradients are not zero",
        "a black-box probe is not stronger",
        "every success is confirmed by the judge",
        "the ensemble finds what the others find",
        "gradients find what queries find",
        "the gradient agrees with finite differences",
        "outputs are in the order of the classes",
    }
    for c in checks:
        assert (c["passed"] is None) == c["detail"].startswith("not asked: ")
        assert c["detail"]
        assert c["consequence"].startswith("if this fails")
    for name in ("eps 0 equals clean", "the gradient agrees with finite differences"):
        assert next(c["passed"] for c in checks if c["name"] == name)


def test_the_examples_are_attacked_images_of_the_run(whole):
    told, arrays = results(whole), load_file(whole / "figures.safetensors")
    clean, attacked = arrays["examples.clean"], arrays["examples.attacked"]
    assert len(told["examples"]) == len(clean) == len(attacked) > 0
    np.testing.assert_array_equal(np.rint(clean * 255).astype(np.float32) / np.float32(255), clean)
    for example, before, after in zip(told["examples"], clean, attacked, strict=True):
        assert example["attack"] == "bim:steps=4"
        assert example["before"] == example["label"]
        size = float(np.abs(after - before).max())
        assert size == pytest.approx(example["size"], abs=1e-6)
        assert size <= example["eps"] + 1e-6
        assert 0.5 <= example["confidence_before"] <= 1


def test_the_table_is_the_rows(whole):
    rows = results(whole)["rows"]
    with (whole / "results.csv").open(newline="", encoding="utf-8") as stream:
        read = list(csv.DictReader(stream))
    assert list(read[0])[:4] == ["study", "data", "model", "kind"]
    for line, row in zip(read, rows, strict=True):
        assert all(line[name] == "" for name in line.keys() - row.keys())
        for name, value in row.items():
            if isinstance(value, float):
                assert float(line[name]) == value
            else:
                assert line[name] == ("" if value is None else str(value))


# -- the same again, and something else ----------------------------------------------------------------------


def test_the_same_command_again_computes_nothing_and_says_the_same(whole):
    def kept() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for part in ("cells", "model") for p in (whole / part).rglob("*")}

    before, told = kept(), (whole / "results.json").read_bytes()
    assert run(*PHANTOM, "--out", whole) == 0
    assert kept() == before
    assert (whole / "results.json").read_bytes() == told


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (("--limit", "11"), "(limit was 12, now 11)"),
        (("--seed", "1"), "(seed was 0, now 1)"),
        (("--attacks", "fgsm"), "(attacks was ['fgsm', 'bim:steps=4'], now ['fgsm'])"),
    ],
)
def test_another_audit_in_the_same_folder_is_refused(whole, changed, said, capsys):
    told = (whole / "results.json").read_bytes()
    assert run(*PHANTOM, "--out", whole, *changed) == 2
    error = capsys.readouterr().err.strip()
    assert error.count("\n") == 0
    assert said in error
    assert error.endswith("choose another --out")
    assert (whole / "results.json").read_bytes() == told


@pytest.mark.slow  # a whole audit
def test_a_saved_network_gives_the_numbers_it_gave_when_it_was_trained(whole, tmp_path):
    words = dict(zip(PHANTOM[1::2], PHANTOM[2::2], strict=True)) | {"--model": whole / "model"}
    del words["--epochs"]
    assert run("audit", *(w for pair in words.items() for w in pair), "--out", tmp_path / "again") == 0
    first, second = results(whole), results(tmp_path / "again")
    assert second["conditions"]["trained_here"] is False
    assert second["conditions"]["model_digest"] == first["conditions"]["model_digest"]
    assert [r | {"model": ""} for r in second["rows"]] == [r | {"model": ""} for r in first["rows"]]
    assert second["checks"] == first["checks"]


@pytest.mark.slow  # two whole audits
def test_the_numbers_do_not_depend_on_the_size_of_a_shard(own, home, monkeypatch):
    monkeypatch.setattr(context, "SHARD", 5)
    words = ("--head", "logit", "--attacks", "bim:steps=3", "--eps", "1/255,16/255")
    assert run(*OWN, *words, "--out", home / "shards") == 0
    first, second = results(own), results(home / "shards")
    assert len(list((home / "shards" / "cells").iterdir())) > 2 * len(list((own / "cells").iterdir()))
    assert second["rows"] == first["rows"]
    assert second["checks"] == first["checks"]


# -- networks and images of one's own ------------------------------------------------------------------------


def test_one_cut_image_is_left_out_counted_and_named(own):
    about = results(own)["conditions"]
    assert [x["file"] for x in about["left_out"]] == [private_names.code("007.png")]
    assert "truncated" in about["left_out"][0]["reason"]
    assert about["n_test"] == 40
    page = (own / "report.html").read_text("utf-8")
    assert private_names.code("007.png") in page
    assert "007.png" not in page


def test_an_own_network_of_one_logit_is_audited_as_it_is(own):
    told = results(own)
    about = told["conditions"]
    assert (about["trained_here"], about["head"], about["model"]) == (False, "logit", "net_of_the_tests:make")
    assert not (own / "model").exists()
    assert about["n_train"] == 0 or about["n_test"] == 40
    assert "not trained here" in " ".join(about["data_notes"])
    clean, curve = next(r for r in told["rows"] if r["kind"] == "clean"), accuracy(told, "bim:steps=3")
    assert clean["n"] == 40
    assert curve[16 / 255]["value"] == 0
    assert accuracy(told, "worst")[16 / 255]["value"] == 0  # with auto there are two
    assert about["n_patients_attacked"] <= 12


def test_intervals_know_that_a_patient_has_several_images(own):
    arrays, told = load_file(own / "figures.safetensors"), results(own)
    right = arrays["test_prediction"] == arrays["test_labels"]
    row = next(r for r in told["rows"] if r["attack"] == "none" and r["metric"] == "accuracy")
    groups = [f"p{i % 12}" for i in range(41) if i != 7]
    assert tuple(row[k] for k in ("value", "low", "high", "n")) == pytest.approx(tuple(stats.proportion(right, groups)))


def test_an_audit_in_l2(home):
    words = ("--norm", "l2", "--attacks", "pgd:steps=3", "--eps", "0.05,2", *ALONE, "--out", home / "l2")
    assert run(*OWN, *words) == 0
    told = results(home / "l2")
    assert {r["norm"] for r in told["rows"]} == {"L2"}
    curve = [r["value"] for r in accuracy(told, "pgd:steps=3").values()]
    assert curve[1] == 0 < curve[0]
    assert not [r for r in told["rows"] if r["metric"] == "accuracy_full"]
    largest = max(e["size"] for e in told["examples"])
    assert 0.02 < largest <= 2 + 1e-6


def test_a_threshold_moves_the_decisions_and_not_the_area(home, own):
    words = ("--head", "logit", "--attacks", "fgsm", "--eps", "1/255", *ALONE, "--threshold", "0.999")
    assert run(*OWN, *words, "--out", home / "careful") == 0
    by = [
        {
            r["metric"]: r["value"]
            for r in results(f)["rows"]
            if r.get("class_name", "well") == "well" and r["kind"] == "clean"
        }
        for f in (own, home / "careful")
    ]
    assert by[1]["auroc"] == pytest.approx(by[0]["auroc"])
    assert by[1]["sensitivity"] < by[0]["sensitivity"]
    assert results(home / "careful")["conditions"]["threshold"] == 0.999


# -- killed --------------------------------------------------------------------------------------------------


@pytest.mark.slow  # an audit in seven processes
def test_killed_at_any_moment_the_same_command_ends_with_the_same_results(whole, processes, tmp_path):
    command, run_ = (*PHANTOM, "--out", "killed"), tmp_path / "killed"
    moments = [
        ("training/training.safetensors", 1),
        ("model/model.safetensors", 1),
        ("cells/.*", 1),
        ("cells/[!.]*", 4),
        ("cells/[!.]*", 9),
        ("report.html", 1),
    ]

    def killed(when: str, count: int) -> int:
        begun = processes.medrobust(*command, folder=tmp_path)
        return begun.kill_when(lambda: len(list(run_.glob(when))) >= count, every=5e-4)

    ends = [killed(when, count) for when, count in moments]
    # a half-written cell lives for a moment only: the process may have been quicker than the watch
    assert ends.count(-9) >= 4
    assert set(ends) <= {-9, 0}
    assert processes.medrobust(*command, folder=tmp_path).wait() == 0
    first, second = results(whole), results(run_)
    for told in (first, second):
        told.pop("seconds")
        told.pop("run")
    assert second == first
    assert (run_ / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    assert (run_ / "figures.safetensors").read_bytes() == (whole / "figures.safetensors").read_bytes()
    assert {p.name for p in (run_ / "cells").iterdir()} == {p.name for p in (whole / "cells").iterdir()}
    assert not list(run_.glob(".*"))


@pytest.mark.slow  # an audit in five processes
def test_stopped_by_hand_or_by_a_full_disk_it_says_so_in_one_line_and_goes_on(whole, processes, tmp_path):
    run_ = tmp_path / "stopped"

    def begin(**limits: int) -> Process:
        return processes.medrobust(*PHANTOM, "--out", "stopped", folder=tmp_path, **limits)

    def cells_there() -> int:
        return len(list((run_ / "cells").glob("[!.]*")))

    first = begin()
    assert first.kill_when((run_ / "training/training.safetensors").exists, signal=2) == 130
    assert first.lines() == ["medrobust: stopped; what is finished is kept, the same command goes on from there"]
    # no file larger than this, as on a disk that is full: the weights do not fit
    full = begin(largest=40_000)
    assert full.wait() == 2
    assert len(full.lines()) == 1
    assert re.match("medrobust: .*File too large", full.lines()[0])
    assert begin().kill_when(lambda: cells_there() >= 2, signal=2) == 130
    kept = cells_there()
    assert kept >= 2
    full = begin(largest=20_000)
    assert full.wait() == 2
    assert len(full.lines()) == 1
    assert full.lines()[0].startswith("medrobust: cannot write to stopped")
    assert cells_there() >= kept
    assert begin().wait() == 0
    assert results(run_)["rows"] == results(whole)["rows"]


def test_the_trained_network_of_a_run_can_be_loaded(whole):
    clf = Classifier.load(whole / "model")
    assert clf.classes == ("normal", "pneumonia")
    assert clf.provenance["epochs_run"] == 2
    assert math.isfinite(clf.provenance["validation"]["loss"])


def test_balanced_accuracy_is_never_surer_than_the_accuracy_itself():
    """With one image a class the mean of recalls is the accuracy; its interval must not be narrower."""
    from medrobust.experiments.rows import clean_rows
    from medrobust.results import Rows, find

    n = 40
    rows = Rows("audit", "d", "m", "Linf", 0)
    right = np.arange(n) % 3 > 0
    decisions = np.where(right, np.arange(n), (np.arange(n) + 1) % n)
    clean_rows(rows, np.full((n, n), 1 / n), np.arange(n), decisions, tuple(map(str, range(n))), None)
    plain, balanced = (find(rows.rows, metric=m).estimate for m in ("accuracy", "balanced_accuracy"))
    assert balanced.value == pytest.approx(plain.value)
    assert balanced.high - balanced.low >= plain.high - plain.low - 1e-9
