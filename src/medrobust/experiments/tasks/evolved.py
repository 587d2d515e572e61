"""Networks trained by search beside gradient baselines: features, one method a cell, the comparison, and attacks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from medrobust.experiments import accuracy_matched, search, search_rows, search_system
from medrobust.experiments.tasks.curves import fresh
from medrobust.experiments.work import Result, Work
from medrobust.progress import NoProgress
from medrobust.results import INCONCLUSIVE, OK, Kind
from medrobust.stats import Estimate
from medrobust.store import Cell
from medrobust.training import evolved as room
from medrobust.training.evolved import QUESTIONS, FeatureTable, OuterFold

GREY = 1 / 255


def features_table(work: Work) -> Result:
    """The table that is searched. args: source, and with images seen, limit, seed. needs: source, with images."""
    if "source" in work.ticket["needs"]:
        images = _images(work)
        table = search_system.table(images, images.compared, work.store, NoProgress())
    else:
        table = room.breast_cancer()
    facts: dict[str, Any] = {
        "rows": [],
        "name": table.name,
        "groups": table.groups.tolist(),
        "classes": list(table.classes),
        "healthy": list(table.healthy),
    }
    return facts, {"features": table.features, "labels": table.labels}


def evolved(work: Work) -> Result:
    """One method, a network for every seed and fold. args: method, question, budget, seeds, folds. needs: table."""
    args, (table, tasks) = work.args, _asked(work)
    ask = _ask(args, (args["method"],))
    problem = QUESTIONS[args["question"]].problem(table, tasks)
    found = room.method(args["question"], args["method"])(problem, ask.evaluations(args["question"]))
    facts: dict[str, Any] = {
        "rows": [],
        "evaluations": found.evaluations,
        "seconds": found.seconds,
        "found": found.facts,
    }
    arrays = {
        "probability": search.judged(found, table, tasks),
        "at": found.at,
        "curve": found.curve,
        "clock": found.clock,
        "worth": found.worth,
    }
    return facts, arrays


def compared(work: Work) -> Result:
    """Every method of one question on one table. args: methods, question, budget, seeds, folds. needs: table, method0…

    metric "difference": balanced accuracy less that of the question's reference, its interval and p (Holm) corrected
    for training sets that overlap.
    """
    args, (table, tasks) = work.args, _asked(work)
    cells = dict(zip(args["methods"], work.inputs("method"), strict=True))
    made, told = search_rows.summary(cells, table, tasks, _ask(args, args["methods"]), args["question"])
    rows, n = fresh(), len(table)

    def add(metric: str, method: str, e: Estimate, **more: Any) -> None:
        kind = told["methods"][method]["kind"]
        rows.add(Kind.SEARCH, metric, e, model=method, method_kind=kind, **more)

    for row in made:
        e = _estimate(row, n)
        add(row["metric"], row["method"], e, status=OK if math.isfinite(e.value) else INCONCLUSIVE, note=_missing(e))
    for method, found in told["against"].items():
        e = Estimate(found["difference"], found["low"], found["high"], n)
        add("difference", method, e, note=f"p {found['p']:.2g}", than=told["reference"])
    for name, about in told["methods"].items():
        if about["evaluations"] is not None:
            add("evaluations", name, Estimate(float(about["evaluations"]), math.nan, math.nan, len(tasks)))
    medians = [
        _number(next(r["value"] for r in made if (r["method"], r["metric"]) == (m, search_rows.MAIN)))
        for m in args["methods"]
    ]
    return {"rows": rows.plain()}, {"medians": np.array(medians)}


def ranked(work: Work) -> Result:
    """Mean ranks over sets (1 is the best) and Friedman's test. args: methods. needs: set0, set1, … (of compared)."""
    names, blocks = work.args["methods"], np.stack([c.arrays["medians"] for c in work.inputs("set")])
    told = search_rows.friedman(blocks, names)
    rows = fresh()
    for name in names:
        rank = Estimate(told["ranks"][name], math.nan, math.nan, len(blocks))
        rows.add(Kind.SEARCH, "rank", rank, data="all sets", model=name)
    p, difference = Estimate(told["p_f"], math.nan, math.nan, len(blocks)), told["critical_difference"]
    rows.add(Kind.SEARCH, "friedman_p", p, data="all sets", critical_difference=difference)
    return {"rows": rows.plain()}, {}


def evolved_attacked(work: Work) -> Result:
    """Evolved networks and their twins under PGD, image by image. args: methods, seeds, images, budget, seen, limit,
    seed. needs: source."""
    args = work.args
    ask = accuracy_matched.AccuracyMatchedConfig(tuple(args["methods"]), args["seeds"], args["images"], args["budget"])
    told = accuracy_matched.attacked(ask, _images(work), work.store, NoProgress())
    rows = fresh("linf", args["seed"])

    def add(metric: str, e: Estimate, attack: str = "pgd", eps: float = 0.0, doubt: str = "", note: str = "") -> None:
        note = note or ("" if math.isfinite(e.value) else _missing(e))
        status = OK if math.isfinite(e.value) and not doubt else INCONCLUSIVE
        note = "; ".join(filter(None, (doubt, note)))
        rows.add(
            Kind.SEARCH,
            metric,
            e,
            attack=attack,
            eps=eps,
            status=status,
            note=note,
            model=row["network"],
            networks=row["seeds"],
        )

    for row in told["rows"]:
        n, why = row["n"], row["doubt"]
        add("accuracy", _estimate(row["clean"], row["clean"]["n"]), attack="none")
        for grey, found in row["accuracy"].items():
            add("accuracy", _estimate(found, found["n"]), eps=float(grey) * GREY, doubt=why)
        add("min_eps_median", _estimate(row["median"], row["median"]["n"], GREY), doubt=why)
        add("matched", Estimate(row["matched"], math.nan, math.nan, told["matching"]), attack="none")
        if "ratio" in row:
            ratio = row["ratio"]
            each = ", ".join("–" if v is None else f"{v:.2f}" for v in ratio["seeds"])
            # the interval is that of images, for these networks
            add("ratio", _estimate(ratio, ratio["n"]), doubt=ratio["doubt"], note=f"by network {each}")
        add("gradients_lost", Estimate(float(row["inconclusive"]), math.nan, math.nan, n))
    return {"rows": rows.plain()}, {}


def _images(work: Work) -> search_system.Images:
    args = work.args
    source = work.model("source", classifies=bool(args["seen"]))
    data = work.data_for(source) if args["seen"] else work.data
    return search_system.parted(data, source, args["seen"], limit=args["limit"], seed=args["seed"])


def _asked(work: Work) -> tuple[FeatureTable, list[OuterFold]]:
    cell: Cell = work.input("table")
    told = cell.facts
    table = FeatureTable(
        told["name"],
        cell.arrays["features"],
        cell.arrays["labels"],
        np.asarray(told["groups"]),
        tuple(told["classes"]),
        tuple(told["healthy"]),
    )
    return table, room.tasks(table, range(work.args["seeds"]), work.args["folds"])


def _ask(args: dict[str, Any], methods: Any) -> search.Ask:
    return search.Ask((args["question"],), tuple(methods), args["budget"], args["seeds"], args["folds"])


def _estimate(found: Mapping[str, Any], n: int, scale: float = 1.0) -> Estimate:
    value, low, high = (_number(found[k]) * scale for k in ("value", "low", "high"))
    return Estimate(value, low, high, n)


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _missing(e: Estimate) -> str:
    return "" if math.isfinite(e.value) else "not defined for these classes"
