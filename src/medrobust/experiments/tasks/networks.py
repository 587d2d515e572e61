"""Networks beside each other: what goes with their size or their classes, and which of two is harder to fool."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch

from medrobust import explain, guessing, stats
from medrobust.experiments.claims import more_often
from medrobust.experiments.features_cache import whose_images
from medrobust.experiments.tasks.curves import fresh, judged_images
from medrobust.experiments.tasks.gradient import DOUBT
from medrobust.experiments.work import Work
from medrobust.results import INCONCLUSIVE, OK, Kind
from medrobust.stats import Estimate
from medrobust.store import Cell, Result
from medrobust.training.recipe import MATCHED

MIN_EPS, ACCURACY, DETECTED = "median min_eps (/255)", "test accuracy", "AUROC of the detector"
ALL, NEAR = "all", "near the target accuracy"
"""Networks that a correlation is over."""


def measured(work: Work) -> Result:
    """Medians of measures over images that are read rightly. args: measures, limit, seed. needs: model."""
    classifier, names = work.model(), list(work.args["measures"])
    part, rows = judged_images(work, classifier), fresh("", work.args["seed"])
    images, labels = part.tensors()
    right = guessing.right(classifier.predict(images).numpy(), part.labels)
    measured = explain.measure(classifier, images, torch.as_tensor(labels), names, ids=part.ids, seed=work.args["seed"])
    arrays = {name: measured[name].numpy() for name in names}
    for name, values in arrays.items():
        rows.add(Kind.EXPLANATION, name, stats.median(values[right & ~np.isnan(values)]), when="clean")
    return {"rows": rows.plain()}, arrays


def more_robust(work: Work) -> Result:
    """Share of the pairs in which an image of the first network needs the larger eps. args: limit, seed.

    Images that are read wrongly without an attack are left out. needs: first, second (models), curve0, curve1.
    """
    curves, rows = work.inputs("curve"), fresh("", work.args["seed"])
    whose = [whose_images(judged_images(work, work.model(name))) for name in ("first", "second")]
    min_eps = [np.where(c.arrays["min_eps"] > 0, c.arrays["min_eps"], np.nan) for c in curves]
    doubt = next((c.facts[DOUBT] for c in curves if c.facts[DOUBT]), "")
    status = INCONCLUSIVE if doubt else OK
    rows.add(Kind.ATTACK, "larger", more_often(*min_eps, *whose), status=status, note=doubt)
    return {"rows": rows.plain()}, {}


def trend(work: Work) -> Result:
    """What goes with the number of weights or of classes: a mean for every kind of network, rank correlations over all.

    args: by ("weights" or "classes"), x (the number of classes of each network, or None), lines (the kind of each),
    groups (whole groups are drawn for the intervals of correlations), kept (eps at which the kept share of accuracy is
    a quantity), target (validation balanced accuracy, or None), aside (kinds that no correlation is over).
    needs: model0, clean0, curve0, measured0, and detector0 or none; model1, …
    """
    args, rows = work.args, fresh()
    kinds, groups = np.array(args["lines"]), np.array(args["groups"])
    models = [work.model(f"model{i}") for i in range(len(kinds))]
    x = np.array(args["x"] or [m.parameters for m in models], float)
    quantities = [dict(_quantities(_cells(work, i), args["kept"])) for i in range(len(kinds))]
    table = {name: np.array([q[name] for q in quantities], float) for name in quantities[0]}
    validation = np.array([_validation(m.provenance) for m in models])
    columns = {"validation, balanced": validation, **table}
    for kind in dict.fromkeys(args["lines"]):
        same = kinds == kind
        for name, values in columns.items():
            known = values[same & np.isfinite(values)]
            e = stats.mean(known)
            if known.size < 3:  # Student's interval of two networks says nothing
                e = Estimate(e.value, np.nan, np.nan, e.n)
            where = {args["by"]: float(x[same].mean()), "network": kind, "quantity": name}
            rows.add(Kind.OTHER, "network_mean", e, **where)
    used = {ALL: ~np.isin(kinds, args["aside"])}
    if args["target"] is not None:
        used[NEAR] = used[ALL] & (np.abs(validation - args["target"]) <= MATCHED)
    for which, some in used.items():
        for name, values in table.items():
            for given in ("", ACCURACY) if name != ACCURACY else ("",):
                rank = stats.spearman(x[some], values[some], groups[some], given=table[given][some] if given else None)
                rows.add(Kind.OTHER, "rank_correlation", rank, quantity=name, networks=which, given=given or "nothing")
    return {"rows": rows.plain()}, {"x": x, "validation": validation}


def _cells(work: Work, i: int) -> dict[str, Cell]:
    names = ("clean", "curve", "measured", "detector")
    return {name: work.input(f"{name}{i}") for name in names if f"{name}{i}" in work.ticket["needs"]}


def _quantities(cells: Mapping[str, Cell], kept: list[float]) -> Iterator[tuple[str, float]]:
    """(name, number) of one network."""
    min_eps = cells["curve"].arrays["min_eps"]
    right = min_eps > 0
    yield MIN_EPS, stats.median(min_eps[right]).value * 255
    for row in cells["measured"].facts["rows"]:
        yield row["metric"], _value(row)
    if "detector" in cells:
        of = {"metric": "auroc", "protocol": "clean", "same": True, "layer": None}
        rows = [r for r in cells["detector"].facts["rows"] if all(r.get(k) == v for k, v in of.items())]
        yield DETECTED, _value(rows[0]) if rows else np.nan
    for eps in kept:
        yield f"accuracy kept at {eps * 255:g}/255", stats.proportion(min_eps[right] > eps * (1 + 1e-6)).value
    accuracy = next(r for r in cells["clean"].facts["rows"] if r["metric"] == "accuracy")
    yield ACCURACY, _value(accuracy)


def _value(row: Mapping[str, float | None]) -> float:
    value = row["value"]
    return np.nan if value is None else value


def _validation(provenance: Mapping[str, Mapping[str, float]]) -> float:
    """Balanced accuracy of the epoch that was kept; NaN for a network trained elsewhere that does not say."""
    return float(provenance.get("validation", {}).get("balanced_accuracy", np.nan))
