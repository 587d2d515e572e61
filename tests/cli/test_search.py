"""`medrobust search`: numbers, a report and networks from one command; kills lose nothing; bad input in one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from medrobust import Classifier, data, json_files
from medrobust.experiments import accuracy_matched, ask, search, search_system
from medrobust.experiments.accuracy_matched import AccuracyMatchedConfig, AttackedNetworks
from medrobust.experiments.context import Context
from medrobust.experiments.search_config import SearchConfig
from medrobust.progress import NoProgress
from medrobust.results import Rows
from medrobust.store import Store
from medrobust.training import evolved
from tests.cli.test_main import run
from tests.training.test_evolved import table

pytestmark = pytest.mark.slow  # runs of the whole command

PHANTOM = ("--data", "phantom:chest@32:n=150")
QUICK = ("--methods", "random,gwo,gwo+adam", "--budget", "240", "--seeds", "2", "--folds", "2", "--limit", "60")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    assert run("search", *PHANTOM, *QUICK, "--what", "weights,threshold", "--budget", "960", "--out", folder) == 0
    return folder


def test_one_command_leaves_numbers_a_page_and_networks(done):
    found = json.loads((done / "results.json").read_text())
    rows = {(r.get("question"), r.get("method"), r["metric"]): r for r in found["rows"]}
    assert {r["kind"] for r in found["rows"]} == {"search"}
    assert {r["attack"] for r in found["rows"]} == {"none"}  # methods are no attacks
    for name in ("logistic", "adam", "multi-start-adam", "random", "gwo", "gwo+adam"):
        row = rows["weights", name, "balanced_accuracy"]
        assert 0 <= row["value"] <= 1
        assert row["low"] is None  # two seeds hold no interval of a median
        assert row["high"] is None
        assert row["n"] == 60
        if name != "logistic":  # which does not evaluate candidates
            assert rows["weights", name, "evaluations"]["value"] == 960
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
    for question in ("Weights of the network", "Decision threshold"):
        assert f"<h3>{question}</h3>" in page
    latex = (done / "tables.tex").read_text()
    assert all(f"tab:search-{kind}-{q}" in latex for kind in ("scores", "apart") for q in ("weights", "threshold"))


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
        "--no-explain",
        "--no-stored",
        "--auto",
        "none",
        "--corruptions",
        "none",
        "--changes",
        "none",
        "--limit",
        "10",
        "--out",
        tmp_path,
    )
    assert run(*command) == 0
    rows = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert any(r["attack"].startswith("square") and r["metric"] == "accuracy" for r in rows)


@pytest.mark.slow
@pytest.mark.loopback
def test_workers_give_the_results_of_one_process(tmp_path):
    quick = ("--methods", "gwo", "--budget", "64", "--seeds", "2", "--folds", "2", "--limit", "30")
    common = ("search", "--data", "phantom:chest@32:n=100", *quick, "--features", "hu", "--device", "cpu")
    assert run(*common, "--out", tmp_path / "one") == 0
    assert run(*common, "--workers", "2", "--out", tmp_path / "two") == 0
    alone, shared = (json.loads((tmp_path / n / "results.json").read_text()) for n in ("one", "two"))
    assert alone["rows"] == shared["rows"]
    assert json_files.digest(alone) == json_files.digest(shared)
    names = [sorted(p.name for p in (tmp_path / n / "models/weights").iterdir()) for n in ("one", "two")]
    assert names[0] == names[1] == ["adam", "gwo", "logistic", "multi-start-adam"]


def test_a_killed_comparison_goes_on_and_gives_the_same_numbers(tmp_path, monkeypatch):
    made, config = table(n=60), SearchConfig(methods=("random", "pso"), budget=96, seeds=2, folds=2)

    def rows(name):
        context = Context(search_system.TableSystem(made), ask(model="none"), Store(tmp_path / name))
        searched = search.SearchComparison(search.SearchData(context, config, "as measured"), "weights")
        return searched.outcome().rows.plain()

    whole = rows("whole")
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
        rows("killed")
    monkeypatch.setattr(search.evolved, "method", lambda q, n: (calls.append(n), real(q, n))[1])
    calls.clear()
    again = rows("killed")
    computed = len(list((tmp_path / "killed" / "cells").iterdir()))
    assert computed == len(config.names("weights"))
    assert len(calls) == computed - 2  # two had been finished
    assert again == whole


def test_evolved_and_gradient_trained_networks_are_attacked_alike(tmp_path):
    spec = ask(data="phantom:chest@32:n=200", model=_small(tmp_path), limit=80)
    system = search_system.assemble(spec, "deep", NoProgress(), "cpu")
    images = search_system.divided(system.data, system.classifier, trained_on_them=True, limit=80)
    config = AccuracyMatchedConfig(methods=("pso",), seeds=2, images=12, budget=240)

    def found():
        rows = Rows()
        AttackedNetworks(config, images, Store(tmp_path / "run").once, NoProgress()).add_rows(rows)
        return rows.rows

    rows = found()
    names = list(dict.fromkeys(r.get("network") for r in rows))
    assert names == ["pso", "control of pso", "adam", "logistic"]
    for name in names:
        mine = [r for r in rows if r.get("network") == name]
        assert {r.get("networks") for r in mine} == {1 if name == "logistic" else 2}
        values = [r.value for r in mine if r.metric == "accuracy"]  # no attack, then growing eps
        assert values == sorted(values, reverse=True)
        assert values[0] <= 1
    (ratio,) = (r for r in rows if r.metric == "ratio")
    assert ratio.get("network") == "pso"
    assert ratio.low <= ratio.value <= ratio.high
    assert found() == rows


def test_a_control_reads_as_many_images_correctly():
    made = table(n=400)
    shown = np.arange(len(made)) % 4 == 0
    config = AccuracyMatchedConfig(methods=("pso",), seeds=3, budget=600)
    networks = accuracy_matched.networks(config, made, made, shown)
    decided = {key: accuracy_matched._decided(n, made) for key, n in networks.items()}
    accuracy = {key: accuracy_matched._accuracy(d, made) for key, d in decided.items()}
    right = {key: (d == made.labels)[shown].mean() for key, d in decided.items()}
    for seed in range(config.seeds):
        assert abs(accuracy["control of pso", seed] - accuracy["pso", seed]) < 0.015
        assert abs(right["control of pso", seed] - right["pso", seed]) < 0.03


def test_controls_that_break_alike_have_a_ratio_of_one_and_twice_the_change_is_two():
    def attacked(name, *values, no_gradient=(False,) * 4):
        return {(name, s): {"min_eps": np.array(values), "inconclusive": np.array(no_gradient)} for s in range(2)}

    owners = ["a", "b", "c", "c"]
    mine = attacked("pso", 0.02, 0.02, 0.01, 0.03)
    control = attacked("control of pso", 0.0, 0.01, 0.005, 0.015)
    estimate, by_seed, _ = accuracy_matched.ratio(mine | control, "pso", 2, owners)
    assert estimate.n == 3  # both read three of the four
    assert [estimate.value, estimate.low, estimate.high, *by_seed] == pytest.approx([2.0] * 5)
    same = attacked("control of pso", 0.02, 0.02, 0.01, 0.03)
    assert accuracy_matched.ratio(mine | same, "pso", 2, owners)[0].value == pytest.approx(1)
    hidden = attacked("control of pso", 0.01, 0.01, 0.005, np.inf, no_gradient=(False, False, False, True))
    estimate, _, left_out = accuracy_matched.ratio(mine | hidden, "pso", 2, owners)
    assert (estimate.n, left_out) == (3, 2)
    assert estimate.value == pytest.approx(2)


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
    assert found["conditions"]["data"] == "breast-cancer"
    values = {r["method"]: r["value"] for r in found["rows"] if r["metric"] == "accuracy"}
    assert values["logistic"] > 0.95  # as everybody finds on this set
    assert np.isfinite(list(values.values())).all()
