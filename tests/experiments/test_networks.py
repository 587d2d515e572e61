"""What goes with the size of networks: rank correlations and means from the cells of networks, and pairs of curves."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from medrobust.experiments.tasks.networks import ALL, MIN_EPS, NEAR, trend

MARGIN = "margin"


def work(weights, min_eps, accuracy, validation, lines, **more):
    """As a task is given it: three images a network, of which the last is wrong before the attack."""
    cells = {}
    for i, eps in enumerate(min_eps):
        cells[f"clean{i}"] = SimpleNamespace(facts={"rows": [{"metric": "accuracy", "value": accuracy[i]}]})
        each = np.array([eps, 2 * eps, eps, 0]) / 255
        cells[f"curve{i}"] = SimpleNamespace(arrays={"min_eps": each})
        cells[f"measured{i}"] = SimpleNamespace(facts={"rows": [{"metric": MARGIN, "value": None}]})
    models = {
        f"model{i}": SimpleNamespace(parameters=w, provenance={"validation": {"balanced_accuracy": v}})
        for i, (w, v) in enumerate(zip(weights, validation, strict=True))
    }
    args = {
        "by": "weights",
        "x": None,
        "lines": lines,
        "groups": lines,
        "kept": [1.5 / 255],
        "target": None,
        "aside": [],
    }
    return SimpleNamespace(
        args=args | more, ticket={"needs": {**cells, **models}}, input=cells.__getitem__, model=models.__getitem__
    )


def value(rows, **columns):
    (row,) = [r for r in rows if all(r.get(k) == v for k, v in columns.items())]
    return row["value"]


def test_min_eps_that_grows_with_the_weights_has_rank_correlation_1():
    lines, weights = ["a", "a", "b", "b", "c", "d"], [1, 1, 2, 2, 3, 4]
    given = work(weights, weights, [0.9, 0.8, 0.7, 0.9, 0.8, 0.7], [0.8] * 6, lines)
    rows = trend(given)[0]["rows"]
    assert value(rows, metric="rank_correlation", quantity=MIN_EPS, given="nothing") == pytest.approx(1)
    assert value(rows, metric="network_mean", network="b", quantity=MIN_EPS) == pytest.approx(2)
    assert value(rows, metric="network_mean", network="b", quantity="test accuracy") == pytest.approx(0.8)
    # of the three images that are right, those that need more than 1.5/255: one of a, all of b
    assert value(rows, metric="network_mean", network="a", quantity="accuracy kept at 1.5/255") == pytest.approx(1 / 3)
    assert value(rows, metric="network_mean", network="b", quantity="accuracy kept at 1.5/255") == 1
    assert {r["weights"] for r in rows if r.get("network") == "c"} == {3}
    assert value(rows, metric="network_mean", network="a", quantity=MARGIN) is None


def test_networks_that_miss_the_target_or_are_set_aside_are_in_no_correlation():
    lines = ["a", "b", "c", "d", "rare"]
    validation = [0.8, 0.805, 0.795, 0.8, 0.8]
    given = work([1, 2, 3, 4, 5], [1, 2, 3, 4, 0.1], [0.8] * 5, validation, lines, target=0.8, aside=["rare"])
    rows = trend(given)[0]["rows"]
    for networks in (ALL, NEAR):
        found = [
            r
            for r in rows
            if r["metric"] == "rank_correlation" and r["networks"] == networks and r["quantity"] == MIN_EPS
        ]
        assert {r["n"] for r in found if r["given"] == "nothing"} == {4}
        assert value(found, given="nothing") == pytest.approx(1)
    away = work([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [0.8] * 5, [0.8, 0.8, 0.8, 0.8, 0.9], lines, target=0.8)
    rows = trend(away)[0]["rows"]
    counts = {r["networks"]: r["n"] for r in rows if r["metric"] == "rank_correlation" and r["quantity"] == MIN_EPS}
    assert counts == {ALL: 5, NEAR: 4}
