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
from medrobust.experiments.explanation import one_a_patient

from .test_cli import run

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


def test_one_command_leaves_numbers_with_their_n_and_interval(done):
    _, out = done
    told = json.loads((out / "results.json").read_text())
    first, beside = told["runs"]
    assert first["name"] != beside["name"]
    sections = {r["section"] for r in first["rows"]}
    assert sections == {"measure", "saliency", "cam", "lesion", "layer", "landscape", "embedding"}
    for layer in first["facts"]["layers"]:
        known = {r["when"]: r for r in first["rows"] if (r["layer"], r["metric"]) == (layer, "effective-rank")}
        assert set(known) == {"clean", "attacked", "change"}
        assert known["clean"]["n"] == 20
    assert any("." in layer for layer in first["facts"]["layers"])
    measured = [r for r in first["rows"] if r["section"] == "measure"]
    assert [r["metric"] for r in measured] == list(first["facts"]["measures"])
    for row in first["rows"]:
        if row["value"] is not None and row["n"] > 6:
            assert row["low"] <= row["value"] <= row["high"]
    assert measured[0]["n"] == 20
    for row in told["comparison"]:
        if row["value"] is not None:
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    with (out / "images.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 40
    assert float(lines[0]["slope-l1"]) > 0
    with (out / "results.csv").open() as file:
        assert len(list(csv.DictReader(file))) == len(first["rows"]) + len(beside["rows"])


def test_rows_say_what_the_numbers_of_the_images_say(done):
    _, out = done
    first, beside = json.loads((out / "results.json").read_text())["runs"]
    arrays = load_file(out / "figures.safetensors")

    def row(metric, when, section="saliency"):
        found = [r for r in first["rows"] if (r["section"], r["metric"], r["when"]) == (section, metric, when)]
        assert len(found) == 1
        return found[0]

    clean, attacked = (arrays[f"0.image.saliency-half.{when}"] for when in ("clean", "attacked"))
    assert np.isfinite(clean).all()
    assert int(np.isfinite(attacked).sum()) == first["facts"]["reached"] == row("saliency-half", "attacked")["n"]
    change = row("saliency-half", "change")
    assert change["value"] == pytest.approx(np.nanmedian(attacked - clean))
    assert change["unknown"] == 20 - first["facts"]["reached"]
    assert row("slope-l1", "clean", "measure")["value"] == pytest.approx(np.median(arrays["0.image.slope-l1"]))
    ill = int((arrays["0.image.lesion-area.clean"] > 0).sum())
    assert row("lesion-point-gradient", "clean", "lesion")["n"] == ill < 20
    # the published plane is there where a second model is, a random one always
    assert arrays["0.landscape.second"].shape == arrays["0.landscape.random"].shape == (2, 17, 17)
    np.testing.assert_array_equal(arrays["0.landscape.second"][:, :, 0], arrays["0.landscape.random"][:, :, 0])
    assert "1.landscape.second" not in arrays
    assert any("No second model" in note for note in beside["facts"]["notes"])


def test_the_page_needs_nothing_from_elsewhere(done):
    _, out = done
    page = (out / "explain.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert "<script" not in page
    for name in [r["name"] for r in json.loads((out / "results.json").read_text())["runs"]]:
        assert name in page
    assert page.count("<svg") == 8
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    for link in re.findall(r'href="#([^"]+)"', page):
        assert link in ids
    assert "nan" not in re.sub(r"<svg.*?</svg>|data:[^\"]*", "", page, flags=re.DOTALL)


def test_it_goes_on_where_it_was(done):
    command, out = done
    before = {p: p.stat().st_mtime_ns for p in out.rglob("cells/*/rows.json")}
    results, page = (out / "results.json").read_bytes(), (out / "explain.html").read_bytes()
    assert run(*command) == 0
    assert {p: p.stat().st_mtime_ns for p in out.rglob("cells/*/rows.json")} == before
    assert (out / "results.json").read_bytes() == results
    assert (out / "explain.html").read_bytes() == page


def test_an_earlier_run_can_stand_beside(models, done, tmp_path, capsys):
    _, earlier = done
    assert run("explain", "--model", models[1], *PHANTOM, *QUICK, "--beside", earlier, "--out", tmp_path) == 0
    shown = capsys.readouterr().out
    assert "no --second model" in shown
    told = json.loads((tmp_path / "results.json").read_text())
    first = json.loads((earlier / "results.json").read_text())["runs"][0]
    assert told["runs"][1]["rows"] == first["rows"]
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


def test_a_broken_run_is_one_line(tmp_path):
    from medrobust import InputError
    from medrobust.report import explanation

    with pytest.raises(InputError, match="holds no finished run of medrobust explain"):
        explanation.write(tmp_path)
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(InputError, match="holds no finished run"):
        explanation.write(tmp_path)


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
    page = (tmp_path / "explain.html").read_text()
    assert "no interval" in page
    assert "No picture of the embedding: t-SNE needs at least 8 images" in page
    assert not (tmp_path / "tsne-0.png").exists()
