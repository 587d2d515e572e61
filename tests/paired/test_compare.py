"""Audits side by side: the right numbers, nothing claimed that they do not show, and refusals in one line."""

from __future__ import annotations

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from medrobust import paired, private_names, ranks, stats
from medrobust.cli import app, main
from medrobust.criteria import BaselineRun
from medrobust.errors import InputError
from medrobust.paired import audits
from medrobust.report.compared import UNDER, Difference, PairedVerdict, compared
from medrobust.report.compared_page import first_page
from medrobust.report.findings import find
from medrobust.report.run import read, same
from medrobust.results import INCONCLUSIVE, Kind, Row
from medrobust.run_folder import RunFolder
from tests.paired.audits import audit

GREY = 1 / 255


def compare(folder: Path, *runs: Path, **options):
    paired.compare(runs, folder, **options)
    return read(folder)


@pytest.fixture
def two(tmp_path) -> tuple[Path, Path]:
    """A fragile network and a sturdier one that is a little less accurate."""
    return audit(tmp_path / "a"), audit(tmp_path / "b", median=2.0, clean=0.85, seed=1, model="hardened")


def value(comparison, kind, metric, **columns) -> Row:
    (row,) = [r for r in comparison.rows if r.kind == kind and r.metric == metric and r.has(**columns)]
    return row


def test_every_number_is_that_of_the_images_both_have(two, tmp_path):
    run = compare(tmp_path / "out", *two)
    a, b = (read(folder).arrays for folder in two)
    right = [x["labels"] == x["clean_prediction"] for x in (a, b)]
    smallest = [np.minimum(x["min_eps.fgsm"], x["min_eps.pgd"]) for x in (a, b)]
    held = [s > np.float32(GREY) for s in smallest]
    clean = value(run, Kind.COMPARISON, "accuracy", when="before")
    assert clean.estimate == pytest.approx(stats.paired_difference(*right))
    assert value(run, Kind.COMPARISON, "accuracy", when="under", eps=GREY).estimate == pytest.approx(
        stats.paired_difference(*held)
    )
    p = value(run, Kind.COMPARISON, "p_value", when="under").value
    assert p == pytest.approx(stats.paired_p_value(*held))
    gained, lost = (value(run, Kind.COMPARISON, m, when="under") for m in ("gained", "lost"))
    assert (gained.value, lost.value) == pytest.approx((np.mean(held[1] & ~held[0]), np.mean(held[0] & ~held[1])))
    pneumonia = a["labels"] == 1
    at = {"when": "under", "class_name": "pneumonia", "eps": GREY}
    assert value(run, Kind.COMPARISON, "sensitivity", **at).estimate == pytest.approx(
        stats.paired_difference(held[0][pneumonia], held[1][pneumonia])
    )
    median = value(run, Kind.WORST, "min_eps_median", run="B")
    assert median.value == pytest.approx(np.median(smallest[1][right[1]]))
    assert same(run.conditions.compared.reference, GREY)


def test_changed_csv_lists_every_image_on_which_they_differ(two, tmp_path):
    compare(tmp_path / "out", *two, names=["before", "after"])
    with (tmp_path / "out/changed.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    a, b = (read(folder).arrays for folder in two)
    differ = (a["labels"] == a["clean_prediction"]) != (b["labels"] == b["clean_prediction"])
    assert [line["image"] for line in lines if line["eps"] == "0"] == [f"{i:012x}" for i in np.flatnonzero(differ)]
    assert all({line["before"], line["after"]} == {"right", "wrong"} for line in lines)
    attacked = [line for line in lines if line["eps"] != "0"]
    p = paired.pair([audits.read(f, n) for f, n in zip(two, "AB", strict=True)])
    assert len(attacked) == int((p.sides[0].held(GREY) != p.sides[1].held(GREY)).sum())


def test_what_is_told_apart_is_said_and_what_is_not_is_not(two, tmp_path):
    page = first_page(find(compare(tmp_path / "out", *two, names=["before", "after"])))
    assert [advice.title for advice in page.advice] == [
        "Attack after harder",
        "Hold the next version to the better run",
    ]
    assert page.title == "after (hardened) withstands these attacks better than before (resnet18)."
    alike = audit(tmp_path / "c", seed=5)
    page = first_page(find(compare(tmp_path / "same", two[0], alike)))
    assert page.title == "B is not shown to withstand attacks better or worse than A."
    assert page.advice == []  # all test images were attacked


@pytest.mark.parametrize("value", [-0.3, -0.02, 0.0, 0.02, 0.3])
@pytest.mark.parametrize("p", [0.001, 0.05, 0.6, None])
def test_never_better_where_the_interval_holds_nothing(value, p):
    for half in (0.01, 0.1, 0.5):
        row = Row("comparison", "accuracy", value, value - half, value + half, 50)
        verdict = Difference("A", "B", row, p).verdict
        if value - half <= 0 <= value + half or p is None or p >= 0.05:
            assert verdict is PairedVerdict.NOT_TOLD_APART
        else:
            assert verdict is (PairedVerdict.BETTER if value > 0 else PairedVerdict.WORSE)
        doubted = Row("comparison", "accuracy", value, value - half, value + half, 50, status=INCONCLUSIVE)
        assert Difference("A", "B", doubted, p).verdict is PairedVerdict.INCONCLUSIVE


def test_with_an_inconclusive_run_the_comparison_is_inconclusive(two, tmp_path):
    blind = audit(tmp_path / "c", blind=True, seed=2)
    run = compare(tmp_path / "out", two[0], blind)
    c = compared(find(run))
    assert c.difference(("A", "B"), UNDER).verdict is PairedVerdict.INCONCLUSIVE
    assert c.difference(("A", "B"), "before").verdict is not PairedVerdict.INCONCLUSIVE  # no attack is needed for that
    page = first_page(find(run))
    assert page.title.startswith("Inconclusive")
    assert "better than A cannot be told" in page.title
    assert [advice.title for advice in page.advice] == ["Attack without gradients"]
    assert all(r.status == INCONCLUSIVE for r in run.rows if r.kind == Kind.COMPARISON and r.eps)


def test_of_three_runs_p_is_adjusted_for_the_pairs(two, tmp_path):
    third = audit(tmp_path / "c", median=0.7, seed=3)
    run = compare(tmp_path / "out", *two, third)
    raw = [r.value for r in run.rows if r.metric == "p_value" and r.get("when") == "under"]
    adjusted = [r.value for r in run.rows if r.metric == "p_adjusted"]
    assert adjusted == pytest.approx(ranks.holm(np.array(raw)))
    assert len(raw) == 3


def test_of_four_runs_the_pairs_have_a_section_of_their_own(two, tmp_path):
    more = [audit(tmp_path / name, seed=seed) for name, seed in (("c", 3), ("d", 4))]
    run = compare(tmp_path / "out", *two, *more)
    assert first_page(find(run)).tables == []
    assert 'id="compared-sides"' in (tmp_path / "out/report.html").read_text()


def test_images_of_one_patient_are_taken_together(tmp_path):
    patients = np.arange(120) // 4
    runs = [audit(tmp_path / n, median=m, seed=s, patients=patients) for n, m, s in (("a", 0.5, 0), ("b", 0.9, 1))]
    run = compare(tmp_path / "out", *runs)
    p = paired.pair([audits.read(folder, name) for folder, name in zip(runs, "AB", strict=True)])
    held = [side.held(p.reference) for side in p.sides]
    row = value(run, Kind.COMPARISON, "accuracy", when="under", eps=p.reference)
    assert row.estimate == pytest.approx(stats.paired_difference(*held, patients))
    assert row.estimate != pytest.approx(stats.paired_difference(*held))
    assert "images of one patient taken together" in (tmp_path / "out/report.html").read_text()


def test_runs_that_overlap_are_compared_on_what_they_share(tmp_path):
    """Other data, classes in another order, names kept in one, half of the images, other attacks and sizes."""
    names = [f"img/{i}.png" for i in range(120)]
    codes = [private_names.code(name) for name in names]
    first = audit(tmp_path / "a", names=codes, data_digest="1" * 64)
    keep = np.arange(119, 39, -1)
    other = audit(tmp_path / "whole", median=2.0, seed=1, names=codes)
    source = read(other).arrays
    swapped = {k: (1 - v if "content" not in k else v)[keep] for k, v in source.items() if k.startswith("test_")}
    swapped |= {k: v[keep] for k, v in source.items() if k.startswith("min_eps.")}
    swapped |= {k: 1 - source[k][keep] for k in ("labels", "clean_prediction")}
    swapped |= {"attacked": np.arange(80), "min_eps.cw": swapped["min_eps.pgd"]}
    swapped |= {"test_probability": source["test_probability"][keep]}
    second = audit(
        tmp_path / "b",
        median=2.0,
        seed=1,
        names=[names[i] for i in keep],
        classes=("pneumonia", "normal"),
        arrays=swapped,
        eps=[GREY, 4 / 255, 16 / 255],
        attacks=["fgsm", "pgd", "cw"],
    )
    run = compare(tmp_path / "out", first, second)
    info = run.conditions.compared
    assert (run.conditions.n_test, run.conditions.n_attacked) == (80, 80)
    assert info.attacks == ["FGSM", "PGD"]
    assert [round(e * 255) for e in run.conditions.eps] == [1, 4]
    assert len(info.notes) == 4
    held = (np.minimum(source["min_eps.fgsm"], source["min_eps.pgd"]) > np.float32(GREY))[40:]
    assert value(run, Kind.WORST, "accuracy", run="B", eps=GREY).value == pytest.approx(held.mean())
    assert "img/118.png" in (tmp_path / "out/changed.csv").read_text()  # a run kept names


def test_several_findings_are_compared_finding_by_finding(tmp_path):
    """A finding that is unknown in an image counts neither way."""
    rng = np.random.default_rng(0)
    labels = rng.integers(-1, 2, (120, 2))
    runs, said = [], []
    for name, wrong in (("a", 30), ("b", 6)):
        prediction = np.abs(labels)
        prediction[:wrong, 0] ^= 1
        arrays = {"test_labels": labels, "test_prediction": prediction}
        arrays |= {"labels": labels, "clean_prediction": prediction}
        run = audit(tmp_path / name, classes=("effusion", "mass"), head="multilabel", arrays=arrays)
        runs.append(run)
        said.append(prediction)
    comparison = compare(tmp_path / "out", *runs)
    present = labels[:, 0] == 1
    row = value(comparison, Kind.COMPARISON, "sensitivity", class_name="effusion", when="before")
    assert row.estimate == pytest.approx(stats.paired_difference(*(p[present, 0] == 1 for p in said)))
    whole = value(comparison, Kind.COMPARISON, "accuracy", when="before")
    right = [((p == labels) | (labels < 0)).all(1) for p in said]
    assert whole.estimate == pytest.approx(stats.paired_difference(*right))
    assert whole.value > 0


REFUSED = {
    "other images": (
        {"names": [f"{i + 500:012x}" for i in range(120)], "data_digest": "1" * 64},
        "no test image in common",
    ),
    "other content": (
        {"arrays": {"test_content": np.arange(1, 121)}, "data_digest": "1" * 64},
        "120 images have the same name in A and B and are not the same files",
    ),
    "other labels": (
        {"arrays": {"test_labels": np.zeros(120, dtype=int)}},
        "60 images have other labels in A than in B",
    ),
    "other classes": (
        {"classes": ("normal", "effusion")},
        "know other classes: A normal, pneumonia; B normal, effusion",
    ),
    "other size": ({"size": 224}, "differ in the side of the images in pixels"),
    "other norm": ({"norm": "L2"}, "differ in the norm of the attacks"),
    "other grid": ({"eps": [0.5]}, "no size in common"),
    "unfinished": ({"pending": ["detection"]}, "is not finished"),
    "no names": ({"test_images": []}, "does not say which images"),
    "damaged": ({"arrays": {"min_eps.pgd": np.zeros(3)}}, "does not fit results.json"),
    "sizes of two columns": ({"arrays": {"min_eps.pgd": np.zeros((120, 2))}}, "does not fit results.json"),
    "sizes that are NaN": ({"arrays": {"min_eps.pgd": np.full(120, np.nan)}}, "does not fit results.json"),
    "labels of findings": ({"arrays": {"test_labels": np.zeros((120, 2), dtype=int)}}, "does not fit results.json"),
    "parts of a class": ({"arrays": {"test_prediction": np.full(120, 0.5)}}, "does not fit results.json"),
    "attacked twice": ({"arrays": {"attacked": np.zeros(120, dtype=int)}}, "does not fit results.json"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_compared_is_refused_in_one_line(case, tmp_path):
    options, words = REFUSED[case]
    first, second = audit(tmp_path / "a"), audit(tmp_path / "b", **options)
    with pytest.raises(InputError, match=re.escape(words)) as refused:
        paired.compare([first, second], tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("read_again", [read, BaselineRun.read])
def test_arrays_that_are_not_those_of_the_run_are_refused(two, read_again):
    """They fit results.json; only the manifest says that they are others."""
    read_again(two[0])
    file = two[0] / "figures.safetensors"
    arrays = load_file(file)
    arrays["min_eps.pgd"] *= 2
    save_file(arrays, file)
    with pytest.raises(InputError, match=r"figures\.safetensors is not what the run wrote"):
        read_again(two[0])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda run: (run / "results.json").write_text((run / "results.json").read_text() + " "),
            "results.json is not",
        ),
        (lambda run: (run / "figures.safetensors").unlink(), "figures.safetensors is missing"),
        (lambda run: (run / "manifest.json").unlink(), "has no manifest.json"),
    ],
)
def test_a_run_is_held_against_its_manifest(change, words, two, tmp_path, capsys, monkeypatch):
    change(two[1])
    monkeypatch.setattr(sys, "argv", ["medrobust", "compare", *map(str, two), "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err.strip()
    assert ended.value.code == 2
    assert words in error
    assert "\n" not in error
    assert not (tmp_path / "out").exists()


def test_a_single_finding_is_compared(tmp_path):
    """Its labels 0 and 1 are two values of one class."""
    labels = (np.arange(120) % 2)[:, None]
    arrays = dict.fromkeys(("test_labels", "test_prediction", "labels", "clean_prediction"), labels)
    runs = [audit(tmp_path / name, head="multilabel", arrays=arrays) for name in "ab"]
    for run in runs:
        results = (
            (run / "results.json").read_text().replace('"classes": ["normal", "pneumonia"]', '"classes": ["mass"]')
        )
        with RunFolder(run, "audit") as folder:
            folder.write_text("results.json", results)
    comparison = compare(tmp_path / "out", *runs)
    assert value(comparison, Kind.CLEAN, "sensitivity", run="A").n == 60


def test_the_command_writes_a_page_and_says_what_it_left_out(two, tmp_path):
    out = tmp_path / "out"
    called = ["compare", *map(str, two), "--names", "before,after", "--eps", "2/255", "--out", str(out)]
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, called, catch_exceptions=False)
    assert "after (hardened) withstands these attacks better" in done.stdout
    assert "2 (reference)" in done.stdout
    page = (out / "report.html").read_text()
    assert [a for a in ("runs", "accuracy", "classes", "more") if f'id="compared-{a}"' not in page] == []
    assert '<span class="option">--baseline</span> RUN' in page
    assert "see “What is compared”" in page
    assert "Exact conditions”.</p></footer>" not in page
    assert "withstands these attacks better" in (out / "summary.md").read_text()
    assert r"\label{tab:compared}" in (out / "tables.tex").read_text()
    assert json.loads((out / "results.json").read_text())["kind"] == "compare"
    with pytest.raises(InputError, match=r"none of the sizes that all were attacked at: 0\.1/255"):
        paired.compare(two, tmp_path / "other", eps=0.2)
    with pytest.raises(InputError, match="name 2 to 26 runs to compare, got 27"):
        paired.compare([two[0]] * 27, tmp_path / "other")
    with pytest.raises(InputError, match="named twice"):
        paired.compare([two[0], two[0]], tmp_path / "other")
