"""Cells that answer a whole question: what they say is what the rooms say, and claims are decided as they should be."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from medrobust import explain, stats
from medrobust.experiments import catalogue, search_catalogue
from medrobust.experiments.adversarial_pairs import AdversarialPairs
from medrobust.experiments.claims import CANNOT_SAY, CLAIMS, CONFIRMED, MIN_EPS, NOT_CONFIRMED
from medrobust.experiments.config import ask
from medrobust.experiments.context import Context
from medrobust.experiments.declared import load
from medrobust.experiments.search import SearchComparison, SearchData
from medrobust.experiments.search_config import SearchConfig
from medrobust.experiments.search_system import TableSystem
from medrobust.experiments.system import unseen
from medrobust.experiments.tasks.explanations import claimed
from medrobust.experiments.tasks.gradient import DOUBT
from medrobust.grid import Data, Model, Part, Study
from medrobust.results import NUMBERS
from medrobust.store import Store
from medrobust.training import evolved
from tests.runner.test_execute import go


def claims(natural: dict, *sets: dict) -> dict:
    """(set, by) -> row."""
    cells = [SimpleNamespace(arrays=a, facts={DOUBT: None}) for a in sets]
    work = SimpleNamespace(
        args={"sets": [f"s{i}" for i in range(len(sets))], "natural": "n", "seed": 0},
        input=lambda _: SimpleNamespace(arrays=natural, facts={DOUBT: None}),
        inputs=lambda _: cells,
    )
    return {(r["data"], r["by"]): r for r in claimed(work)[0]["rows"]}


def test_claims_are_confirmed_by_every_set_or_not_at_all():
    low, high = np.arange(40.0), np.arange(40.0) + 100
    names = {MIN_EPS: ("eps*", low, high), "slope-l1": ("slope of the loss (L1)", high, low)}  # as claimed
    as_claimed = {k: v[1] for k, v in names.items()}
    natural = {k: v[2] for k, v in names.items()}
    found = claims(natural, as_claimed, as_claimed)
    assert {r["note"] for r in found.values()} == {CONFIRMED}
    assert (found["s0", "eps*"]["value"], found["s0", "slope of the loss (L1)"]["value"]) == (0, 1)
    assert found["all of them", "eps*"]["value"] is None
    assert claims(natural, as_claimed, natural)["all of them", "eps*"]["note"] == CANNOT_SAY
    assert claims(natural, natural)["s0", "eps*"]["value"] == 0.5
    turned = claims(as_claimed, natural, as_claimed)
    assert turned["s0", "eps*"]["note"] == turned["all of them", "eps*"]["note"] == NOT_CONFIRMED
    # what was not measured everywhere is not judged
    assert not claims({}, as_claimed)
    assert len({(c.text, c.by) for c in CLAIMS}) == len(CLAIMS)


PHANTOM = Data("phantom", "phantom:chest@32:n=240")


@pytest.fixture(scope="module")
def tiny() -> Model:
    return Model("tiny", PHANTOM, "small_cnn", {"epochs": 3})


@pytest.mark.slow  # explains a network twice
def test_a_cell_of_explanations_says_what_the_rooms_say(tiny, tmp_path):
    from medrobust.classifier import Classifier

    node = catalogue.explained(tiny, limit=20, surfaces=6, measures=("slope-l1",), steps=2, eps=32 / 255)
    told = go(Study("S", "here", [Part("inside", "Inside", [node, catalogue.claimed([node], node)])]), tmp_path)
    assert not told["failed"]
    rows = {(r["metric"], r["attack"], r.get("direction"), r.get("at")): r for r in told["rows"]}
    (folder,) = (tmp_path / "models").iterdir()
    classifier = Classifier.load(folder)
    test, _ = unseen(load(PHANTOM, tmp_path), classifier, trained=False)
    part = AdversarialPairs(Store(tmp_path), classifier, test, limit=20).part
    slope = explain.measure(classifier, part, torch.from_numpy(part.labels), ("slope-l1",), ids=part.ids)["slope-l1"]
    mine = rows["slope-l1", "none", None, None]
    assert [mine[k] for k in ("value", "low", "high", "n")] == pytest.approx(list(stats.median(slope.numpy())))
    # the loss rises along its gradient, at first; the plane holds every step of 0.5/255 but the image itself
    rises = [v for k, v in rows.items() if k[0] == "rise" and k[2] == "gradient"]
    assert [r["at"] for r in rises] == pytest.approx(list(explain.GRID[1:]))
    assert rises[0]["value"] > 0
    # a set beside itself: no difference, whatever is claimed
    pairs = [r for r in told["rows"] if r["metric"] == "larger" and r["data"] == "phantom"]
    assert pairs
    assert [r["value"] for r in pairs] == pytest.approx([0.5] * len(pairs))
    assert {r["note"] for r in pairs} == {CANNOT_SAY}


def test_networks_by_search_are_those_of_the_search_room(tmp_path):
    """One method a cell or all in one run: the same networks, folds and differences."""
    common = {"budget": 200, "seeds": 2, "folds": 2}
    node = search_catalogue.compared(search_catalogue.features_table(), ("random", "de"), **common)
    told = go(
        Study("S", "here", [Part("networks", "Networks", [node, search_catalogue.ranked([node, node])])]), tmp_path
    )
    context = Context(TableSystem(evolved.breast_cancer()), ask(model="none"), Store(tmp_path / "other"))
    data = SearchData(context, SearchConfig(methods=("random", "de"), **common), "as measured")
    command = {(r.get("method"), r.metric): r for r in SearchComparison(data, "weights").outcome().rows.rows}
    of_methods = [r for r in told["rows"] if r["data"] != "all sets" and r["metric"] not in ("better", "worse")]
    rows = {(r["model"], r["metric"]): r for r in of_methods}
    assert {m for m, metric in rows if metric == "difference"} == {"logistic", "multi-start-adam", "random", "de"}
    for name, row in rows.items():
        assert {k: row[k] for k in NUMBERS} == {k: getattr(command[name], k) for k in NUMBERS}
    ranks = {r["model"]: r["value"] for r in told["rows"] if r["metric"] == "rank"}
    assert sum(ranks.values()) == sum(range(1, len(ranks) + 1))


def test_what_gives_the_features_is_never_compared_on_images_that_it_was_trained_on(tiny):
    other = Data("other", "phantom:skin@32:n=240")
    assert search_catalogue.features_table(tiny).args["seen"]
    assert not search_catalogue.features_table(tiny, other).args["seen"]
    assert search_catalogue.evolved_under_attack(tiny, ("de",)).args["seen"]
