"""`medrobust explain`: numbers, an offline page, classifiers side by side; bad input in one line."""

from __future__ import annotations

import csv
import dataclasses
import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file

from medrobust import Classifier, data
from medrobust.experiments.adversarial_pairs import one_a_patient
from tests.cli.test_main import run

pytestmark = pytest.mark.slow  # runs of the whole command

PHANTOM = ("--data", "phantom:chest@32:n=216")
QUICK = (
    "--measures",
    "slope-l1,saliency-half,margin,curvature,relative-rank",
    "--limit",
    "20",
    "--landscapes",
    "2",
    "--attacks",
    "pgd:steps=4",
    "--eps",
    "8/255",
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two classifiers of the same data, trained apart."""
    folder = tmp_path_factory.mktemp("explain")
    for seed in (0, 1):
        train = ("--model", "small_cnn", "--epochs", "2", "--seed", seed, "--device", "cpu")
        assert run("train", "--out", folder / str(seed), *PHANTOM, *train) == 0
    return folder / "0", folder / "1"


@pytest.fixture(scope="module")
def done(models, tmp_path_factory):
    """A run with a second model, and another classifier beside it."""
    out = tmp_path_factory.mktemp("explained")
    command = (
        "explain",
        "--model",
        models[0],
        *PHANTOM,
        *QUICK,
        "--second",
        models[1],
        "--beside",
        models[1],
        "--out",
        out,
    )
    assert run(*command) == 0
    return command, out


def of(results: dict, place: int = 0) -> tuple[dict, list[dict]]:
    """What is said of the classifier at that place, and its rows."""
    rows = [r for r in results["rows"] if r["kind"] == "explanation" and "than" not in r]
    return results["conditions"]["explained"][str(place)], [r for r in rows if r.get("beside", 0) == place]


def test_one_command_leaves_numbers_with_their_n_and_interval(done):
    _, out = done
    results = json.loads((out / "results.json").read_text())
    assert (results["format"], results["kind"]) == (2, "explain")
    (info, first), (other, beside) = of(results), of(results, 1)
    assert {r["model"] for r in first} == {info["model"]} != {r["model"] for r in beside} == {other["model"]}
    for layer in info["layers"]:
        known = {r["when"]: r for r in first if (r.get("layer"), r["metric"]) == (layer, "effective-rank")}
        assert set(known) == {"clean", "attacked", "change"}
        assert known["clean"]["n"] == 20
    assert any("." in layer for layer in info["layers"])
    measured = [r for r in first if r["metric"] in info["measures"] and "layer" not in r and r["when"] == "clean"]
    assert list(dict.fromkeys(r["metric"] for r in measured)) == list(info["measures"])
    assert {"saliency-gini", "cam-shift", "lesion-auroc", "loss", "probe"} <= {r["metric"] for r in first}
    for row in results["rows"]:
        if row["value"] is not None and row["low"] is not None:
            assert row["low"] <= row["value"] <= row["high"]
    pairs = [r for r in results["rows"] if "than" in r]
    assert {r["measure"] for r in pairs} > set(info["measures"])
    for row in pairs:
        assert row["metric"] == "larger"
        if row["value"] is not None:
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    with (out / "images.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 40
    assert float(lines[0]["slope-l1"]) > 0
    with (out / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(results["rows"])


def test_rows_say_what_the_numbers_of_the_images_say(done):
    _, out = done
    results = json.loads((out / "results.json").read_text())
    (info, first), (other, _) = of(results), of(results, 1)
    arrays = load_file(out / "figures.safetensors")

    def row(metric, when, **columns):
        found = [
            r
            for r in first
            if (r["metric"], r["when"], r.get("map"), r.get("layer")) == (metric, when, columns.get("map"), None)
        ]
        assert len(found) >= 1
        return found[0]

    clean, attacked = (arrays[f"explain.0.image.saliency-half.{when}"] for when in ("clean", "attacked"))
    assert np.isfinite(clean).all()
    assert int(np.isfinite(attacked).sum()) == info["reached"] == row("saliency-half", "attacked")["n"]
    change = row("saliency-half", "change")
    assert change["value"] == pytest.approx(np.nanmedian(attacked - clean))
    assert change["unknown"] == 20 - info["reached"]
    assert (change["attack"], change["eps"]) == ("pgd:steps=4", 8 / 255)
    assert row("slope-l1", "clean")["value"] == pytest.approx(np.median(arrays["explain.0.image.slope-l1"]))
    assert row("cam-shift", "noise")["value"] == pytest.approx(np.median(arrays["explain.0.image.cam-shift.noise"]))
    ill = int((arrays["explain.0.image.lesion-area.clean"] > 0).sum())
    assert row("lesion-point", "clean", map="gradient")["n"] == ill < 20
    # the published plane is there where a second model is, a random one always
    second, random = (arrays[f"explain.0.landscape.{name}"] for name in ("second", "random"))
    assert second.shape == random.shape == (2, 17, 17)
    np.testing.assert_array_equal(second[:, :, 0], random[:, :, 0])
    assert "explain.1.landscape.second" not in arrays
    assert any("No second model" in note for note in other["notes"])


def test_the_page_needs_nothing_from_elsewhere(done):
    _, out = done
    page = (out / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert page.count("<script") == 1  # its own: folding, and values under the pointer
    assert "Why it breaks: phantom:chest@32, small_cnn (1) beside phantom:chest@32, small_cnn (2)" in page
    tables = (out / "tables.tex").read_text()
    for name in ("measures", "saliency", "cam", "lesion", "layers", "landscape", "embedding"):
        assert rf"\label{{tab:{name}}}" in tables
        assert page.count(f'id="tab-{name}"') == 1
    assert page.count("<svg") == 8
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for link in re.findall(r'href="#([^"]+)"', page):
        assert link in ids
    assert "nan" not in re.sub(r"<svg.*?</svg>|data:[^\"]*", "", page, flags=re.DOTALL)


def test_it_goes_on_where_it_was(done):
    command, out = done
    before = {p: p.stat().st_mtime_ns for p in out.rglob("cells/*/rows.json")}
    results = json.loads((out / "results.json").read_text())
    assert run(*command) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("cells/*/rows.json")} == before
    again = json.loads((out / "results.json").read_text())
    assert again["rows"] == results["rows"]
    assert again["conditions"] == results["conditions"]


def test_an_earlier_run_can_stand_beside(models, done, tmp_path, capsys):
    _, earlier = done
    assert run("explain", "--model", models[1], *PHANTOM, *QUICK, "--beside", earlier, "--out", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "no --second model" in shown
    _, rows = of(json.loads((tmp_path / "results.json").read_text()), 1)
    _, first = of(json.loads((earlier / "results.json").read_text()))
    # the folder of a classifier beside is a name of the user's
    own = ("beside", "model")
    assert [{k: v for k, v in r.items() if k not in own} for r in rows] == [
        {k: v for k, v in r.items() if k not in own} for r in first
    ]
    assert (tmp_path / "tsne-1.png").read_bytes() == (earlier / "tsne-0.png").read_bytes()


def test_one_image_a_patient(tmp_path):
    part = data.load("phantom:chest@32:n=60").split("test")
    several = dataclasses.replace(part, patients=np.array([f"p{i // 3}" for i in range(len(part))]))
    few = one_a_patient(several, 0)
    assert len(few) == len(set(several.patients)) == len(set(few.patients))
    assert one_a_patient(several.select(range(len(part) - 1, -1, -1)), 0).ids[::-1] == few.ids
    assert len(one_a_patient(part, 0)) == len(part)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--layers", "stage9"), "no layer 'stage9'; it has penultimate, logits, "),
        (("--cam-layer", "stage9"), "no layer 'stage9'; it has penultimate, logits, "),
        (("--measures", "beauty"), "measure 'beauty' is not known; choose from slope-l1, "),
        (("--attacks", "magic"), "attack 'magic' is not known"),
        (("--eps", "1/255,2/255"), "--eps takes one size"),
        (("--landscapes", "0"), "at least 1 image needs a landscape"),
        (("--limit", "-1"), "--limit must not be negative"),
        (("--second", "nowhere"), "--second nowhere is not a folder"),
        (("--beside", "nowhere"), "neither a classifier saved by medrobust nor a run"),
        (("--beside-data", "phantom:skin"), "1 times --beside-data but 0 times --beside"),
        (("--model", "nowhere"), "is not a folder"),
    ],
)
def test_bad_input_is_one_line(models, tmp_path, capsys, options, says):
    assert run("explain", "--model", models[0], *PHANTOM, *QUICK, "--out", tmp_path, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert says in error
    assert error.startswith("medrobust: ")


def test_a_second_model_of_other_classes_is_refused(models, tmp_path, capsys):
    first = Classifier.load(models[0])
    other = Classifier(first.net, ("cat", "dog"), mean=first.mean, std=first.std, size=32, provenance=first.provenance)
    other.save(tmp_path / "other")
    second = ("--second", tmp_path / "other", "--out", tmp_path / "out")
    assert run("explain", "--model", models[0], *PHANTOM, *QUICK, *second) == 2
    assert "the second model knows the classes cat, dog" in capsys.readouterr().err


def test_a_broken_run_beside_is_one_line(models, tmp_path, capsys):
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / "results.json").write_text("{}")
    command = ("explain", "--model", models[0], *PHANTOM, *QUICK, "--out", tmp_path / "out")
    assert run(*command, "--beside", tmp_path / "earlier") == 2
    assert "is the run of another command" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("limit", [1, 3])
def test_few_images_give_a_page_without_what_needs_more(models, tmp_path, limit):
    """t-SNE needs 8 points, the interval of a median 6 images: left out in one line, the rest is written."""
    command = (
        "explain",
        "--model",
        models[0],
        *PHANTOM,
        "--measures",
        "slope-l1",
        "--limit",
        limit,
        "--landscapes",
        "1",
        "--attacks",
        "pgd:steps=2",
        "--eps",
        "8/255",
        "--out",
        tmp_path,
    )
    assert run(*command) == 0
    page = (tmp_path / "report.html").read_text()
    assert "no interval" in page
    assert "No picture of the embedding: t-SNE needs at least 8 images" in page
    assert not (tmp_path / "tsne-0.png").exists()
