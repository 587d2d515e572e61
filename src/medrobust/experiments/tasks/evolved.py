"""Networks trained by search beside gradient baselines: ``medrobust.experiments.search``, one method a cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from medrobust.experiments import search_rows
from medrobust.experiments.accuracy_matched import AccuracyMatchedConfig, AttackedNetworks
from medrobust.experiments.search import trained
from medrobust.experiments.search_config import SearchConfig
from medrobust.experiments.search_rows import MethodComparison
from medrobust.experiments.search_system import SearchImages, divided, features_of
from medrobust.experiments.tasks.curves import fresh
from medrobust.experiments.work import Work
from medrobust.progress import NoProgress
from medrobust.results import Row, Rows
from medrobust.store import Result
from medrobust.training import evolved as room
from medrobust.training.evolved import QUESTIONS, FeatureTable, OuterFold


def features_table(work: Work) -> Result:
    """The table that is searched. args: source, and with images seen, limit, seed. needs: source, with images."""
    if "source" in work.ticket["needs"]:
        images = _images(work)
        table = features_of(images, images.compared, work.store.once, NoProgress())
    else:
        table = room.breast_cancer()
    facts: dict[str, object] = {
        "rows": [],
        "name": table.name,
        "groups": table.groups.tolist(),
        "classes": list(table.classes),
        "healthy": list(table.healthy),
    }
    return facts, {"features": table.features, "labels": table.labels}


def evolved(work: Work) -> Result:
    """One method, a network for every seed and fold. args: method, question, budget, seeds, folds. needs: table."""
    args, (table, tasks) = work.args, _table(work)
    config = _config(args, [args["method"]])
    problem = QUESTIONS[args["question"]].problem(table, tasks)
    facts, arrays = trained(problem, args["question"], args["method"], config.evaluations(args["question"]))
    return {"rows": [], **facts}, arrays


def compared(work: Work) -> Result:
    """Every method of one question on one table. args: methods, question, budget, seeds, folds. needs: table, method0…

    Rows as those of ``medrobust search``, with the method as the model.
    """
    args, (table, tasks) = work.args, _table(work)
    cells = dict(zip(args["methods"], work.inputs("method"), strict=True))
    comparison, rows = MethodComparison(args["question"], cells, table, tasks), fresh("")
    comparison.add_scores(rows)
    comparison.add_differences(rows)
    comparison.add_counts(rows)
    comparison.add_evaluations(rows)
    medians = [np.median(comparison.by_seed[m][search_rows.MAIN]) for m in args["methods"]]
    return {"rows": _plain(rows, "method")}, {"medians": np.array(medians)}


def ranked(work: Work) -> Result:
    """Mean ranks over sets (1 is the best) and Friedman's test. args: methods. needs: set0, set1, … (of compared)."""
    blocks, rows = np.stack([c.arrays["medians"] for c in work.inputs("set")]), fresh("")
    search_rows.add_ranks(rows, blocks, work.args["methods"], data="all sets")
    return {"rows": _plain(rows, "method")}, {}


def evolved_attacked(work: Work) -> Result:
    """Evolved networks and their controls under PGD, image by image. args: methods, seeds, images, budget, seen, limit,
    seed. needs: source. Rows as those of ``medrobust search``, with the network as the model."""
    args = work.args
    config = AccuracyMatchedConfig(tuple(args["methods"]), args["seeds"], args["images"], args["budget"])
    rows = fresh("linf", args["seed"])
    AttackedNetworks(config, _images(work), work.store.once, NoProgress()).add_rows(rows)
    rows.rows = [_with_seeds(row) for row in rows.rows]
    return {"rows": _plain(rows, "network")}, {}


def _with_seeds(row: Row) -> Row:
    """A row of ratios with that of each network in its note: its interval is that of images, for these networks."""
    if (by_seed := row.get("by_seed")) is None:
        return row
    each = "by network " + ", ".join("–" if v is None else f"{v:.2f}" for v in by_seed)
    more = {k: v for k, v in row.more.items() if k != "by_seed"}
    return replace(row, note="; ".join(filter(None, (row.note, each))), more=more)


def _plain(rows: Rows, column: str) -> list[dict[str, object]]:
    """The rows as JSON, that column as the model."""
    named = [replace(r, model=r.get(column, r.model)) for r in rows.rows]
    return [{k: v for k, v in row.plain().items() if k != column} for row in named]


def _images(work: Work) -> SearchImages:
    args = work.args
    source = work.model("source", classifies=bool(args["seen"]))
    data = work.data_for(source) if args["seen"] else work.data
    return divided(data, source, args["seen"], limit=args["limit"], seed=args["seed"])


def _table(work: Work) -> tuple[FeatureTable, list[OuterFold]]:
    cell = work.input("table")
    facts = cell.facts
    table = FeatureTable(
        facts["name"],
        cell.arrays["features"],
        cell.arrays["labels"],
        np.asarray(facts["groups"]),
        tuple(facts["classes"]),
        tuple(facts["healthy"]),
    )
    return table, room.tasks(table, range(work.args["seeds"]), work.args["folds"])


def _config(args: Mapping[str, Any], methods: list[str]) -> SearchConfig:
    return SearchConfig((args["question"],), tuple(methods), args["budget"], args["seeds"], args["folds"])
