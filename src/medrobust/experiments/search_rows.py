"""What the cells of a comparison amount to: every metric with its spread and interval, and who differs from whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from medrobust import guessing, ranks, stats
from medrobust.store import Cell
from medrobust.training import evolved
from medrobust.training.evolved import METRICS, QUESTIONS, FeatureTable, OuterFold, scored

if TYPE_CHECKING:
    from medrobust.experiments.search import Ask

MAIN = "balanced_accuracy"
"""What methods are compared by: classes of unequal size count the same."""


def summary(
    cells: dict[str, Cell], table: FeatureTable, tasks: list[OuterFold], ask: Ask, question: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(rows, what was found on this question)."""
    by_seed = {name: _scores(cell, table) for name, cell in cells.items()}
    rows = [
        {"question": question, "method": name, "metric": metric, **spread(values), "n": len(table)}
        for name, scores in by_seed.items()
        for metric, values in scores.items()
    ]
    reference = QUESTIONS[question].reference
    told = {
        "reference": reference,
        "reference_guesses": _guesses(cells[reference], table),
        "methods": {n: {**evolved.method_info(question, n), **_method(c, len(tasks))} for n, c in cells.items()},
        "against": _against(cells, table, tasks, by_seed, ask, reference),
        "blocks": {name: scores[MAIN].tolist() for name, scores in by_seed.items()},
    }
    if len(cells) > 2:
        told["friedman"] = friedman(np.stack([s[MAIN] for s in by_seed.values()], 1), list(by_seed))
    return rows, told


def _guesses(cell: Cell, table: FeatureTable) -> str:
    """Why the reference says nothing: with most seeds it is no better than guessing. Empty where it is better."""
    found = [guessing.of(p.argmax(1) == table.labels, table.labels, table.groups) for p in cell.arrays["probability"]]
    found.sort(key=lambda g: g.balanced.value)
    return found[len(found) // 2].text if sum(g.no_better for g in found) * 2 >= len(found) else ""


def spread(values: np.ndarray) -> dict[str, Any]:
    """Median over seeds with its distribution-free interval, and the quartiles; None where it is not defined.

    Of fewer than 6 seeds there is no interval.
    """
    if np.isnan(values).any():
        return {"value": None, "low": None, "high": None, "q1": None, "q3": None, "seeds": len(values)}
    middle = stats.median(values)
    q1, q3 = np.quantile(values, [0.25, 0.75])
    low, high = (None if np.isnan(v) else v for v in (middle.low, middle.high))
    return {"value": middle.value, "low": low, "high": high, "q1": float(q1), "q3": float(q3), "seeds": len(values)}


def friedman(values: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Ranks of the methods over blocks: values (blocks, methods), higher is better."""
    found = ranks.friedman(values)
    return {
        "ranks": dict(zip(names, found.mean_ranks.tolist(), strict=True)),
        "blocks": found.blocks,
        "chi2": found.chi2,
        "p": found.p,
        "f": min(found.f, 1e12),
        "p_f": found.p_f,
        "critical_difference": ranks.critical_difference(len(names), found.blocks),
    }


def times(cell: Cell, tasks: int) -> dict[str, Any]:
    """Seconds of one processor for one task: in all, and until each point of the convergence curve."""
    return {"seconds": cell.facts["seconds"] / tasks, "clock": (cell.arrays["clock"] / tasks).tolist()}


def _scores(cell: Cell, table: FeatureTable) -> dict[str, np.ndarray]:
    """Metric -> (seeds,), of all images, each from the fold that it was held out of."""
    each = [scored(p, table.labels, table.healthy) for p in cell.arrays["probability"]]
    return {metric: np.array([s[metric] for s in each]) for metric in METRICS}


def _method(cell: Cell, tasks: int) -> dict[str, Any]:
    worth, curve = cell.arrays["worth"], cell.arrays["curve"]
    out: dict[str, Any] = {"evaluations": cell.facts["evaluations"], "tasks": tasks, "found": {}}
    if worth.size:
        out["worth"] = spread(worth)
    if curve.size:
        low, middle, high = np.quantile(curve, [0.25, 0.5, 0.75], axis=0)
        out["curve"] = {
            "at": cell.arrays["at"].tolist(),
            "median": middle.tolist(),
            "q1": low.tolist(),
            "q3": high.tolist(),
        }
    for name, values in cell.facts["found"].items():
        flat = np.asarray(values, dtype=float)
        if flat.ndim == 1 and flat.size == tasks:
            out["found"][name] = spread(flat)
    return out


def _against(
    cells: dict[str, Cell],
    table: FeatureTable,
    tasks: list[OuterFold],
    by_seed: dict[str, dict[str, np.ndarray]],
    ask: Ask,
    reference: str,
) -> dict[str, Any]:
    """Every method's balanced accuracy less the reference's, and whether they can be told apart.

    p: corrected for overlapping training sets, then Holm's over the methods; p_wilcoxon: signed ranks over seeds,
    then Holm's: it takes seeds for independent, which draws of the same patients are not, and calls too much different.
    """
    others = [name for name in cells if name != reference]
    by_fold = {name: _folds(cell, table, tasks) for name, cell in cells.items()}
    found = {name: ranks.corrected_t(by_fold[name] - by_fold[reference], 1 / (ask.folds - 1)) for name in others}
    p = ranks.holm(np.array([f[3] for f in found.values()]))
    w = ranks.holm(np.array([ranks.wilcoxon(by_seed[n][MAIN], by_seed[reference][MAIN]) for n in others]))
    return {
        name: {
            "difference": f[0],
            **{k: None if np.isnan(v) else v for k, v in (("low", f[1]), ("high", f[2]))},
            "p": float(a),
            "p_wilcoxon": float(b),
            "detectable": _number(ranks.detectable(f[1], f[2], len(tasks), len(others))),
        }
        for (name, f), a, b in zip(found.items(), p, w, strict=True)
    }


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _folds(cell: Cell, table: FeatureTable, tasks: list[OuterFold]) -> np.ndarray:
    """(seeds * folds,): balanced accuracy of each task's test images."""
    seeds = sorted({t.seed for t in tasks})
    out = []
    for task in tasks:
        decided = cell.arrays["probability"][seeds.index(task.seed), task.test].argmax(1)
        labels = table.labels[task.test]
        out.append(np.mean([(decided[labels == c] == c).mean() for c in range(len(table.classes))]))
    return np.asarray(out)
