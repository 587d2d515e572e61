"""Images that keep their own sizes: an audit with preprocessing, and a table of reference decisions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from torchvision import transforms

import medrobust as mr
from medrobust.errors import InputError
from tests.commands import run
from tests.data_files import write_table
from tests.door_nets import Bright

SIZES = [(40, 30)] * 7 + [(36, 44)] * 5
STEPS = "resize=28,crop=24"


def decision(file: Path) -> str:
    """The user's own pipeline."""
    steps = transforms.Compose([transforms.Resize(28), transforms.CenterCrop(24), transforms.ToTensor()])
    with Image.open(file) as image, torch.no_grad():
        return ("dark", "bright")[int(Bright()(steps(image)[None]).argmax())]


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sizes")
    draw = np.random.default_rng(0)
    rows = []
    for i, (width, height) in enumerate(SIZES):
        level = 100 + 60 * (i % 2)
        pixels = np.clip(draw.normal(level, 12, (height, width)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append({"file": f"{i}.png", "label": ("dark", "bright")[i % 2]})
    return write_table(folder, rows)


def audit(table: Path, out: Path, *more: str) -> int:
    own = ("--model", "tests.door_nets:Bright", "--classes", "dark,bright", "--preprocessing", STEPS)
    cheap = ("--attacks", "pgd:steps=4", "--eps", "4/255,64/255", "--auto", "none")
    return run("audit", "--data", f"csv:{table}", *own, *cheap, "--out", out, *more)


@pytest.fixture(scope="module")
def audited(table: Path, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    predictions = table.parent / "predictions.csv"
    lines = [f"{file.name},{decision(file)}" for file in sorted(table.parent.glob("*.png"))]
    predictions.write_text("\n".join(["file,prediction", *lines]) + "\n")
    assert audit(table, out, "--reference", str(predictions)) == 0
    return out


def test_images_of_two_sizes_are_audited_in_their_own_pixels(audited: Path) -> None:
    results: dict[str, Any] = json.loads((audited / "results.json").read_text())
    conditions = results["conditions"]
    assert conditions["shapes"] == [[30, 40], [44, 36]]
    assert conditions["preprocessing"] == STEPS
    rows = {(r["metric"], r["eps"]): r for r in results["rows"] if r["attack"] == "pgd:steps=4"}
    assert rows["accuracy", 4 / 255]["n"] == len(SIZES)
    assert rows["accuracy", 64 / 255]["value"] < rows["accuracy", 4 / 255]["value"]
    assert load_file(audited / "figures.safetensors")["min_eps.pgd:steps=4"].shape == (len(SIZES),)
    assert [x["part"] for x in results["left_out"]] == [
        *("universal perturbations", "detectors", "explanations", "changes that a file can hold")
    ]
    page = (audited / "report.html").read_text()
    assert "2 sizes, up to 44 pixels a side" in page
    assert (
        "Not measured: universal perturbations, detectors, explanations, changes that a file can hold (the images"
        in page
    )


def test_a_reference_that_differs_names_the_first_image(table: Path, tmp_path: Path, capfd) -> None:
    wrong = tmp_path / "wrong.csv"
    files = sorted(table.parent.glob("*.png"), key=lambda f: int(f.stem))
    decisions = [decision(f) for f in files]
    decisions[2] = "bright" if decisions[2] == "dark" else "dark"
    wrong.write_text("file,prediction\n" + "".join(f"{f.name},{d}\n" for f, d in zip(files, decisions, strict=True)))
    assert audit(table, tmp_path / "run", "--reference", str(wrong)) == 2
    error = capfd.readouterr().err
    assert "1 of 12 decisions are not those of wrong.csv, first 2.png" in error


def test_images_of_several_sizes_are_not_put_into_one_array(table: Path) -> None:
    data = mr.data.load(f"csv:{table}", fit="none")
    assert data.shapes == ((30, 40), (44, 36))
    assert [len(index) for index in data.by_id().bounds(5)] == [5, 2, 5]
    assert [len(ids) for _, _, ids in data.by_id().batches(100)] == [7, 5]
    assert data.most_frequent_shape().shape == (1, 30, 40)
    assert data.images([0]).shape == (1, 1, 30, 40)
    with pytest.raises(InputError, match="differ in size"):
        data.images(range(12))


def test_training_asks_for_one_size(table: Path, tmp_path: Path, capfd) -> None:
    out = str(tmp_path / "run")
    assert run("audit", "--data", f"csv:{table}", "--preprocessing", STEPS, "--out", out) == 2
    assert "is trained on images of one size" in capfd.readouterr().err
