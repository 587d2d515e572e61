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
from medrobust.stats import Estimate
from medrobust.store import Cell
from medrobust.training import evolved as room
from medrobust.training.evolved import QUESTIONS, Table, Task

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
    for row in made:
        e = _estimate(row, n)
        rows.add("none", 0.0, row["metric"], e, "ok" if math.isfinite(e.value) else "inconclusive", _missing(e))
        rows.rows[-1] |= {"model": row["method"], "kind": told["methods"][row["method"]]["kind"]}
    for method, found in told["against"].items():
        e = Estimate(found["difference"], found["low"], found["high"], n)
        rows.add("none", 0.0, "difference", e, note=f"p {found['p']:.2g}")
        rows.rows[-1] |= {"model": method, "kind": told["methods"][method]["kind"], "than": told["reference"]}
    for name, about in told["methods"].items():
        if about["evaluations"] is not None:
            rows.add("none", 0.0, "evaluations", Estimate(float(about["evaluations"]), math.nan, math.nan, len(tasks)))
            rows.rows[-1] |= {"model": name, "kind": about["kind"]}
    medians = [
        _number(next(r["value"] for r in made if (r["method"], r["metric"]) == (m, search_rows.MAIN)))
        for m in args["methods"]
    ]
    return {"rows": rows.rows}, {"medians": np.array(medians)}


def ranked(work: Work) -> Result:
    """Mean ranks over sets (1 is the best) and Friedman's test. args: methods. needs: set0, set1, … (of compared)."""
    names, blocks = work.args["methods"], np.stack([c.arrays["medians"] for c in work.inputs("set")])
    told = search_rows.friedman(blocks, names)
    rows = fresh()
    for name in names:
        rows.add("none", 0.0, "rank", Estimate(told["ranks"][name], math.nan, math.nan, len(blocks)))
        rows.rows[-1] |= {"data": "all sets", "model": name}
    rows.add("none", 0.0, "friedman_p", Estimate(told["p_f"], math.nan, math.nan, len(blocks)))
    rows.rows[-1] |= {"data": "all sets", "model": "", "critical_difference": told["critical_difference"]}
    return {"rows": rows.rows}, {}


def evolved_attacked(work: Work) -> Result:
    """Evolved networks and their twins under PGD, image by image. args: methods, seeds, images, budget, seen, limit,
    seed. needs: source."""
    args = work.args
    ask = accuracy_matched.Robustness(tuple(args["methods"]), args["seeds"], args["images"], args["budget"])
    told = accuracy_matched.attacked(ask, _images(work), work.store, NoProgress())
    rows = fresh("linf", args["seed"])

    def add(attack: str, eps: float, metric: str, found: dict[str, Any], scale: float = 1.0) -> None:
        e = _estimate(found, found["n"], scale)
        rows.add(attack, eps, metric, e, "ok" if math.isfinite(e.value) else "inconclusive", _missing(e))
        rows.rows[-1] |= {"model": row["network"], "networks": row["seeds"]}

    for row in told["rows"]:
        add("none", 0.0, "accuracy", row["clean"])
        for grey, found in row["accuracy"].items():
            add("pgd", float(grey) * GREY, "accuracy", found)
        add("pgd", 0.0, "eps_star_median", row["median"], GREY)
        matched = Estimate(row["matched"], math.nan, math.nan, told["matching"])
        rows.add("none", 0.0, "matched", matched)
        rows.rows[-1] |= {"model": row["network"], "networks": row["seeds"]}
        if "ratio" in row:
            add("pgd", 0.0, "ratio", row["ratio"])
            each = ", ".join("–" if v is None else f"{v:.2f}" for v in row["ratio"]["seeds"])
            rows.rows[-1]["note"] = f"by network {each}"  # the interval is that of images, for these networks
        for made in rows.rows:
            if (made["attack"], made["model"]) == ("pgd", row["network"]):
                why = row["ratio"]["doubt"] if made["metric"] == "ratio" else row["doubt"]
                if why:
                    made |= {"status": "inconclusive", "note": "; ".join(filter(None, (why, made["note"])))}
        blind = Estimate(float(row["inconclusive"]), math.nan, math.nan, row["n"])
        rows.add("pgd", 0.0, "gradients_lost", blind)
        rows.rows[-1] |= {"model": row["network"], "networks": row["seeds"]}
    return {"rows": rows.rows}, {}


def _images(work: Work) -> search_system.Images:
    args = work.args
    source = work.model("source", classifies=bool(args["seen"]))
    data = work.data_for(source) if args["seen"] else work.data
    return search_system.parted(data, source, args["seen"], limit=args["limit"], seed=args["seed"])


def _asked(work: Work) -> tuple[Table, list[Task]]:
    cell: Cell = work.input("table")
    told = cell.facts
    table = Table(
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
