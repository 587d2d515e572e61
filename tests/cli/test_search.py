"""`medrobust search`: numbers, a report and networks from one command; kills lose nothing; bad input in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medrobust import Classifier, data
from medrobust.experiments import accuracy_matched, search, search_system
from medrobust.experiments.accuracy_matched import AccuracyMatchedConfig, attacked
from medrobust.experiments.search import Ask, Searching
from medrobust.store import Store
from medrobust.training import evolved
from tests.cli.test_main import run
from tests.training.test_evolved import table

PHANTOM = ("--data", "phantom:chest@32:n=150")
QUICK = ("--methods", "random,gwo,gwo+adam", "--budget", "240", "--seeds", "2", "--folds", "2", "--limit", "60")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    assert run("search", *PHANTOM, *QUICK, "--what", "weights,threshold", "--budget", "960", "--out", folder) == 0
    return folder


def test_one_command_leaves_numbers_a_page_and_networks(done):
    found = json.loads((done / "results.json").read_text())
    rows = {(r["question"], r["method"], r["metric"]): r for r in found["rows"]}
    for name in ("logistic", "adam", "multi-start-adam", "random", "gwo", "gwo+adam"):
        row = rows["weights", name, "balanced_accuracy"]
        assert 0 <= row["value"] <= 1
        assert row["low"] is None  # two seeds hold no interval of a median
        assert row["high"] is None
        assert row["n"] == 60
        assert found["questions"]["weights"]["methods"][name]["evaluations"] in (960, None)
    assert ("threshold", "gwo+adam", "auroc") not in rows  # no gradients there
    assert rows["threshold", "scan", "specificity"]["value"] is not None
    page = (done / "report.html").read_text()
    assert 'src="http' not in page
    assert 'href="http' not in page
    # 60 images, two seeds, 960 evaluations: far too little for an answer
    assert "cannot say" in page
    assert "patients not known" in page
    assert "Patients were dealt into folds" not in page
    assert len((done / "results.csv").read_text().splitlines()) == len(found["rows"]) + 1


def test_the_report_again_gives_the_same_bytes(done):
    before = (done / "report.html").read_bytes()
    assert run("report", done) == 0
    assert (done / "report.html").read_bytes() == before


@pytest.mark.filterwarnings("ignore:No gradient reaches the image")
def test_a_kept_network_knows_its_data_and_can_be_attacked(done, tmp_path):
    network = Classifier.load(done / "models" / "weights" / "gwo")
    images = data.load(PHANTOM[1])
    assert network.provenance["data"]["digest"] == images.digest()
    assert network.provenance["search"]["method"] == "gwo"
    test, _ = images.split("test").tensors()
    assert network.logits(test).isfinite().all()
    command = (
        "audit",
        *PHANTOM,
        "--model",
        done / "models" / "weights" / "gwo",
        "--attacks",
        "square:steps=20",
        "--eps",
        "8/255,32/255",
        "--no-universal",
        "--no-detect",
        "--limit",
        "10",
        "--out",
        tmp_path,
    )
    assert run(*command) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert any(r["attack"].startswith("square") and r["metric"] == "accuracy" for r in rows)


def test_a_killed_comparison_goes_on_and_gives_the_same_numbers(tmp_path, monkeypatch):
    made, ask = table(n=60), Ask(methods=("random", "pso"), budget=96, seeds=2, folds=2)
    whole, _ = Searching(ask, tmp_path / "whole", made).run()
    real, calls = evolved.method, []

    def dying(question, name):
        def find(problem, budget):
            calls.append(name)
            if len(calls) == 3:
                raise KeyboardInterrupt
            return real(question, name)(problem, budget)

        return find

    monkeypatch.setattr(search.evolved, "method", dying)
    with pytest.raises(KeyboardInterrupt):
        Searching(ask, tmp_path / "killed", made).run()
    monkeypatch.setattr(search.evolved, "method", lambda q, n: (calls.append(n), real(q, n))[1])
    calls.clear()
    again, _ = Searching(ask, tmp_path / "killed", made).run()
    computed = len(list((tmp_path / "killed" / "cells").iterdir()))
    assert computed == len(ask.names("weights"))
    assert len(calls) == computed - 2  # two had been finished
    assert json.dumps(again, sort_keys=True) == json.dumps(whole, sort_keys=True)


def test_evolved_and_gradient_trained_networks_are_attacked_alike(tmp_path):
    from medrobust.cli.bars import Bars

    images = search_system.assemble("phantom:chest@32:n=200", "deep", model=_small(tmp_path), limit=80)
    ask = AccuracyMatchedConfig(methods=("pso",), seeds=2, images=12, budget=240)
    found = attacked(ask, images, Store(tmp_path / "run"), Bars())
    rows = {r["network"]: r for r in found["rows"]}
    assert list(rows) == ["pso", "twin of pso", "adam", "logistic"]
    assert rows["logistic"]["seeds"] == 1
    for row in rows.values():
        values = [v["value"] for v in row["accuracy"].values()]
        assert values == sorted(values, reverse=True)
        assert values[0] <= row["clean"]["value"] <= 1
    ratio = rows["pso"]["ratio"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]
    assert "ratio" not in rows["adam"]
    assert attacked(ask, images, Store(tmp_path / "run"), Bars()) == found


def test_a_twin_reads_as_many_images_correctly():
    made = table(n=400)
    shown = np.arange(len(made)) % 4 == 0
    ask = AccuracyMatchedConfig(methods=("pso",), seeds=3, budget=600)
    networks = accuracy_matched._networks(ask, made, made, shown)
    decided = {key: accuracy_matched._decided(n, made) for key, n in networks.items()}
    accuracy = {key: accuracy_matched._accuracy(d, made) for key, d in decided.items()}
    right = {key: (d == made.labels)[shown].mean() for key, d in decided.items()}
    for seed in range(ask.seeds):
        assert abs(accuracy["twin of pso", seed] - accuracy["pso", seed]) < 0.015
        assert abs(right["twin of pso", seed] - right["pso", seed]) < 0.03


def test_twins_that_break_alike_have_a_ratio_of_one_and_twice_the_change_is_two():
    def attacked(name, *values, no_gradient=(False,) * 4):
        return {(name, s): {"min_eps": np.array(values), "inconclusive": np.array(no_gradient)} for s in range(2)}

    owners = ["a", "b", "c", "c"]
    mine = attacked("pso", 0.02, 0.02, 0.01, 0.03)
    told = accuracy_matched._ratio(mine | attacked("twin of pso", 0.0, 0.01, 0.005, 0.015), "pso", 2, owners)
    assert told["n"] == 3  # both read three of the four
    assert [told["value"], told["low"], told["high"], *told["seeds"]] == pytest.approx([2.0] * 5)
    same = attacked("twin of pso", 0.02, 0.02, 0.01, 0.03)
    assert accuracy_matched._ratio(mine | same, "pso", 2, owners)["value"] == pytest.approx(1)
    hidden = attacked("twin of pso", 0.01, 0.01, 0.005, np.inf, no_gradient=(False, False, False, True))
    told = accuracy_matched._ratio(mine | hidden, "pso", 2, owners)
    assert (told["n"], told["left_out"]) == (3, 2)
    assert told["value"] == pytest.approx(2)


def _small(folder) -> str:
    import torch

    from medrobust import models

    torch.manual_seed(0)
    net = models.build("small_cnn", classes=2, channels=1, size=32).eval()
    classes = data.load("phantom:chest@32:n=20").classes
    clf = Classifier(net, classes, channels=1, size=32, provenance={"architecture": "small_cnn"})
    return str(clf.save(folder / "model"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--methods", "magic"), "method 'magic' is not known"),
        (("--what", "everything"), "'everything' cannot be searched"),
        (("--features", "sift"), "features 'sift' are not known"),
        (("--features", "deep"), "deep features need a network"),
        (("--features", "deep", "--model", "resnet18"), "needs weights"),
        (("--budget", "20"), "raise the budget"),
        (("--what", "hyper"), "raise it to"),
        (("--seeds", "1"), "seeds must be 2 or more"),
        (("--folds", "1"), "folds must be 2 or more"),
        (("--limit", "-1"), "--limit must be 0 or more"),
        (("--healthy", "fine"), "--healthy 'fine' is not a class"),
        (("--data", "breast-cancer", "--attacked", "5"), "nothing to attack"),
        (("--data", "csv:nowhere.csv"), "nowhere.csv"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, options, says):
    assert run("search", *PHANTOM, *QUICK, *options, "--out", tmp_path) == 2
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told.startswith("medrobust: ")
    assert says in told


def test_the_table_of_scikit_learn_needs_no_images(tmp_path, capsys):
    assert run("search", "--data", "breast-cancer", *QUICK, "--out", tmp_path) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    found = json.loads((tmp_path / "results.json").read_text())
    values = {r["method"]: r["value"] for r in found["rows"] if r["metric"] == "accuracy"}
    assert values["logistic"] > 0.95  # as everybody finds on this set
    assert np.isfinite(list(values.values())).all()
