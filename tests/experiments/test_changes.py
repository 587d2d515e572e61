"""Changes beyond small ones in an audit: rows are what the judge says of the worst change and of its controls."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust import report, stats
from medrobust.attacks import CHANGES, worst_change
from medrobust.experiments import ask, audit, system
from medrobust.experiments.changes import ChangesExperiment, change_rows
from medrobust.experiments.config import change_named
from medrobust.experiments.context import Context
from medrobust.models import BlackBoxModel
from medrobust.results import Row, Rows, among, find
from medrobust.store import Store
from tests.data_files import write_table
from tests.experiments.test_own_sizes import SIZES

CHOSEN = ("patch:side=0.3", "patch-anywhere:along=3", "spatial:degrees=30:steps=3", "bias-field", "exposure")
CLOSE = "spatial:degrees=2:shift=0.02:scale=0"
CONTROLS = {"patch:side=0.3": {"noise patch", "bright patch"}, "spatial:degrees=30:steps=3": {"random"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("changes") / "run"
    spec = ask(data="phantom:chest@32:n=200", model="small_cnn", epochs=2, attacks=("fgsm",), eps=(4 / 255,), limit=8)
    off = dict.fromkeys(("universal", "detect", "explain", "stored"), False)
    results = audit(
        spec.model_copy(update={**off, "auto": "", "corruptions": "", "changes": CHOSEN}), out, device="cpu"
    )
    report.write(out)
    return out, results


def test_an_audit_measures_every_change_beside_its_controls(folder):
    out, results = folder
    rows = list(among([Row.read(r) for r in results["rows"]], kind="change"))
    assert {r.get("change") for r in rows} == set(CHOSEN) == set(results["conditions"]["changes"])
    for name, controls in CONTROLS.items():
        assert {r.get("made") for r in rows if r.get("change") == name} == {"optimised", *controls}
    classifier = mr.Classifier.load(out / "model")
    part = system.given(mr.data.load("phantom:chest@32:n=200"), classifier).test.sample(8, 0).sample(40, 0)
    images, labels = part.tensors()
    right = classifier.predict(images) == labels
    for name, change in (("exposure", CHANGES["exposure"]()), ("patch:side=0.3", CHANGES["patch"](side=0.3))):
        found = worst_change(change, classifier, images, mr.Untargeted(labels), ids=part.ids)
        wrong = classifier.predict(found.images) != labels
        row = find(rows, change=name, made="optimised", metric="success")
        assert tuple(row.estimate) == pytest.approx(tuple(stats.proportion(wrong[right].numpy(), None)))
        assert find(rows, change=name, made="optimised", metric="accuracy").value == pytest.approx(
            1 - wrong.float().mean().item()
        )


def test_the_report_says_what_was_allowed_and_what_it_did_and_lists_the_kinds_as_tested(folder):
    text = (folder[0] / "report.html").read_text()
    for words in ("Beyond small pixel changes", "Turned by up to 30 degrees", "A patch of 30", "drawn at random"):
        assert words in text
    tested = text[text.index('<section id="threat"') :]
    assert "A patch in the image" in tested[: tested.index("Not tested")]


def test_the_same_audit_reuses_its_cells(folder):
    out, results = folder
    spec = ask(**{**results["conditions"]["config"], "data": "phantom:chest@32:n=200", "model": "small_cnn"})
    again = audit(spec, out, device="cpu")
    assert again["rows"] == results["rows"]
    assert again["seconds"]["change"] == results["seconds"]["change"]


@pytest.mark.filterwarnings("ignore:Only answers")
def test_a_black_box_of_images_of_several_sizes_is_asked_a_grid(tmp_path):
    from PIL import Image

    draw, lines = np.random.default_rng(0), []
    for i, (width, height) in enumerate(SIZES):
        pixels = np.clip(draw.normal(90 + 50 * (i % 2), 12, (height, width)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        lines.append({"file": f"{i}.png", "label": ("dark", "bright")[i % 2], "patient": f"p{i // 2}"})
    data = mr.data.load(f"csv:{write_table(tmp_path, lines)}", fit="none")
    classes = ("dark", "bright")
    answers = BlackBoxModel(lambda x: np.where(x.mean((1, 2, 3)) > 0.45, "bright", "dark"), classes)
    context = Context(
        system.given(data, mr.Classifier(answers, classes)),
        ask(data=data.name, changes=tuple(CHANGES)),
        Store(tmp_path / "run"),
    )
    outcome = ChangesExperiment(context).outcome()
    assert outcome.on_gradients == ()
    row = find(outcome.rows.rows, change="exposure", made="optimised", metric="success")
    assert row.value == 1.0  # every image is made bright or dark enough
    assert row.n == len(SIZES)
    assert find(outcome.rows.rows, change="patch", made="optimised", metric="success").value == 0.0
    stated = outcome.conditions["changes"]["exposure"]
    assert len(stated["examples"]) == len(outcome.pictures["changes.exposure.clean"]) == 1


def test_of_several_findings_the_set_is_attacked_and_unknown_ones_do_not_count(tmp_path):
    data = mr.data.load("phantom:chest-findings@32:n=60")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.AvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(64, len(data.classes)))
    classifier = mr.Classifier(net, data.classes, head="multilabel", channels=1)
    labels = classifier.predict(data.tensors()[0]).numpy()
    labels[:, 0] = -1
    data = dataclasses.replace(data, labels=labels)
    context = Context(system.given(data, classifier), ask(data=data.name, changes=(CLOSE,)), Store(tmp_path))
    experiment = ChangesExperiment(context)
    images, truth = experiment.part.tensors()
    found = change_named(CLOSE)(classifier, images, mr.Untargeted(truth), ids=experiment.part.ids)
    wrong = (classifier.predict(found) != truth)[:, 1:].any(1).double().mean().item()
    row = find(experiment.outcome().rows.rows, made="optimised", metric="success")
    assert (row.value, row.n) == (pytest.approx(wrong), len(images))
    assert 0 < wrong < 1
    assert experiment.outcome().on_gradients == (CLOSE,)


def test_shares_of_draws_are_taken_of_the_images_read_correctly():
    arrays = {
        "before": np.array([True, False, False, False]),
        "reached": np.array([True, True, True, False]),
        "control.random": np.array([1.0, 0.5, 0.0, 0.1]),
    }
    rows = Rows()
    change_rows(rows, "spatial", arrays, None)
    values = {(r.metric, r.get("made")): (r.value, r.n) for r in rows.rows}
    assert values["accuracy", "optimised"] == (0.25, 4)
    assert values["success", "optimised"] == (pytest.approx(2 / 3), 3)
    assert values["success", "random"] == (pytest.approx(0.2), 3)


def test_changes_are_named_or_refused():
    with pytest.raises(mr.InputError, match="change 'warp' is not known; choose from patch, patch-anywhere, spatial"):
        ask(changes=("warp",))
    with pytest.raises(mr.InputError, match="change 'spatial' takes degrees, shift, scale, fill, steps"):
        ask(changes=("spatial:angle=3",))
    with pytest.raises(mr.InputError, match="shift and scale"):
        ask(changes=("spatial:shift=2",))
