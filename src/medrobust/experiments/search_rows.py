"""The rows of a comparison of searches: every metric with its spread and interval, and who differs from whom."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medrobust import guessing, ranks, stats
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.stats import Estimate
from medrobust.store import Cell
from medrobust.training import evolved
from medrobust.training.evolved import METRICS, QUESTIONS, FeatureTable, OuterFold, scored

MAIN = "balanced_accuracy"
"""What methods are compared by: classes of unequal size count the same."""
ALPHA = 0.05
TESTS = {"corrected": "p", "signed ranks over seeds": "p_signed_ranks"}
"""Of a difference: the column of its p. The second takes seeds for independent, which they are not."""
UNDEFINED = "not defined for these classes"


class MethodComparison:
    """Every method of one question on one table. cells: those of ``medrobust.experiments.search.trained``, by method.

    All rows have the columns question, method and method_kind.
    """

    def __init__(
        self, question: str, cells: Mapping[str, Cell], table: FeatureTable, tasks: Sequence[OuterFold]
    ) -> None:
        self.question, self.cells, self.table, self.tasks = question, cells, table, tasks
        self.reference = QUESTIONS[question].reference
        self.methods = {name: evolved.method_info(question, name) for name in cells}
        self.seeds = sorted({t.seed for t in tasks})
        self.by_seed = {name: _scores(cell, table) for name, cell in cells.items()}
        """By method and metric, (seeds,): of all images, each from the fold that it was held out of."""

    def add_scores(self, rows: Rows) -> None:
        """Medians over seeds, with quartiles; of fewer than 6 seeds there is no interval."""
        for name, scores in self.by_seed.items():
            for metric, values in scores.items():
                self._add(rows, metric, name, *spread(values, len(self.table)))

    def add_differences(self, rows: Rows) -> None:
        """Every method's balanced accuracy less the reference's, and whether they can be told apart.

        Interval and p are corrected for overlapping training sets, p then by Holm over the methods. p_signed_ranks:
        Wilcoxon's over seeds, then Holm's: it takes seeds for independent, which draws of the same patients are not,
        and calls too much different. detectable: the smallest advantage found with 80 % power.
        """
        others = [name for name in self.cells if name != self.reference]
        folds, by_fold = len(self.tasks) // len(self.seeds), {name: self._folds(c) for name, c in self.cells.items()}
        tests = [ranks.corrected_t(by_fold[n] - by_fold[self.reference], 1 / (folds - 1)) for n in others]
        p = ranks.holm(np.array([test[3] for test in tests]))
        mains = {name: scores[MAIN] for name, scores in self.by_seed.items()}
        signed = ranks.holm(np.array([ranks.wilcoxon(mains[n], mains[self.reference]) for n in others]))
        for name, (difference, low, high, _), at, of_ranks in zip(others, tests, p, signed, strict=True):
            detectable = ranks.detectable(low, high, len(self.tasks), len(others))
            estimate = Estimate(difference, low, high, len(self.table))
            more = {"than": self.reference, "p": float(at), "p_signed_ranks": float(of_ranks)}
            more["detectable"] = float(detectable) if math.isfinite(detectable) else None
            self._add(rows, "difference", name, estimate, {}, note=f"p {at:.2g}", **more)

    def add_counts(self, rows: Rows) -> None:
        """How many searches are better and worse than the reference (p < ALPHA, Holm), by each of TESTS; n: of all."""
        made = Rows()
        self.add_differences(made)
        for kind in ("search", "both"):
            differences = [row for row in made.rows if row.get("method_kind") == kind]
            for test, p in TESTS.items() if differences else ():
                apart = [row.value > 0 for row in differences if row.value is not None and row.get(p) < ALPHA]
                for metric, count in (("better", sum(apart)), ("worse", len(apart) - sum(apart))):
                    estimate = Estimate(float(count), math.nan, math.nan, len(differences))
                    columns: dict[str, Any] = {
                        "question": self.question,
                        "method_kind": kind,
                        "test": test,
                        "than": self.reference,
                    }
                    rows.add(Kind.SEARCH, metric, estimate, **columns)

    def add_evaluations(self, rows: Rows) -> None:
        """Spent by each network, a gradient counted as three; none of a method that does not evaluate candidates."""
        for name, cell in self.cells.items():
            if (spent := cell.facts["evaluations"]) is not None:
                self._add(rows, "evaluations", name, Estimate(float(spent), math.nan, math.nan, len(self.tasks)), {})

    def add_training(self, rows: Rows) -> None:
        """The objective that each method reached on training images, and what it chose, such as how many features."""
        for name, cell in self.cells.items():
            if (worth := cell.arrays["worth"]).size:
                self._add(rows, "objective", name, *spread(worth, len(self.tasks)))
            for fact, values in cell.facts["found"].items():
                flat = np.asarray(values, dtype=float)
                if flat.ndim == 1 and flat.size == len(self.tasks):
                    self._add(rows, fact, name, *spread(flat, len(self.tasks)))

    def add_ranks(self, rows: Rows) -> None:
        """Over seeds, which are draws of the same images; nothing for two methods."""
        if len(self.cells) > 2:
            blocks = np.stack([scores[MAIN] for scores in self.by_seed.values()], 1)
            add_ranks(rows, blocks, list(self.by_seed), question=self.question)

    def info(self, budget: int) -> dict[str, Any]:
        """For results.json. budget: evaluations of each network."""
        reference = _guesses(self.cells[self.reference], self.table)
        return {"budget": budget, "reference": self.reference, "reference_guesses": reference, "methods": self.methods}

    def arrays(self) -> dict[str, np.ndarray]:
        """METHOD.balanced_accuracy (seeds,), METHOD.seconds (1,) of one processor a network; of the convergence, over
        networks, METHOD.at (evaluations), METHOD.clock (seconds), METHOD.median, METHOD.q1 and METHOD.q3, all (m,)."""
        out: dict[str, np.ndarray] = {}
        for name, cell in self.cells.items():
            out[f"{name}.{MAIN}"] = self.by_seed[name][MAIN]
            out[f"{name}.seconds"] = np.array([cell.facts["seconds"] / len(self.tasks)])
            if cell.arrays["curve"].size:
                q1, median, q3 = np.quantile(cell.arrays["curve"], [0.25, 0.5, 0.75], axis=0)
                clock = cell.arrays["clock"] / len(self.tasks)
                curve = {"at": cell.arrays["at"], "clock": clock, "median": median, "q1": q1, "q3": q3}
                out |= {f"{name}.{part}": values for part, values in curve.items()}
        return out

    def _add(
        self, rows: Rows, metric: str, method: str, estimate: Estimate, quartiles: Mapping[str, Any], **more: Any
    ) -> None:
        if not math.isfinite(estimate.value):
            more = {"status": INCONCLUSIVE, "note": UNDEFINED, **more}
        columns: dict[str, Any] = {
            "question": self.question,
            "method": method,
            "method_kind": self.methods[method]["kind"],
        }
        rows.add(Kind.SEARCH, metric, estimate, **columns, **quartiles, **more)

    def _folds(self, cell: Cell) -> np.ndarray:
        """(seeds * folds,): balanced accuracy of each task's test images."""
        out = []
        for task in self.tasks:
            decided = cell.arrays["probability"][self.seeds.index(task.seed), task.test].argmax(1)
            labels = self.table.labels[task.test]
            out.append(np.mean([(decided[labels == c] == c).mean() for c in range(len(self.table.classes))]))
        return np.asarray(out)


def add_ranks(rows: Rows, values: np.ndarray, names: Sequence[str], status: str = OK, **columns: Any) -> None:
    """Mean ranks of methods and Friedman's test. values: (blocks, methods), higher is better; 1 is the best rank."""
    friedman = ranks.friedman(values)

    def add(metric: str, value: float, **more: Any) -> None:
        estimate = Estimate(value, math.nan, math.nan, friedman.blocks)
        rows.add(Kind.SEARCH, metric, estimate, status=status, **columns, **more)

    for name, rank in zip(names, friedman.mean_ranks.tolist(), strict=True):
        add("rank", rank, method=name)
    tests = {"chi2": friedman.chi2, "p_chi2": friedman.p, "f": min(friedman.f, 1e12)}
    add("friedman_p", friedman.p_f, critical_difference=ranks.critical_difference(len(names), friedman.blocks), **tests)


def spread(values: np.ndarray, n: int) -> tuple[Estimate, dict[str, Any]]:
    """Median with its distribution-free interval, and the quartiles and number of the values; NaN where not defined."""
    if np.isnan(values).any():
        return Estimate(math.nan, math.nan, math.nan, n), {"seeds": len(values)}
    q1, q3 = np.quantile(values, [0.25, 0.75])
    return stats.median(values)._replace(n=n), {"q1": float(q1), "q3": float(q3), "seeds": len(values)}


def _guesses(cell: Cell, table: FeatureTable) -> str:
    """Why the reference says nothing: with most seeds it is no better than guessing. Empty where it is better."""
    judged = [guessing.of(p.argmax(1) == table.labels, table.labels, table.groups) for p in cell.arrays["probability"]]
    judged.sort(key=lambda g: g.balanced.value)
    return judged[len(judged) // 2].text if sum(g.no_better for g in judged) * 2 >= len(judged) else ""


def _scores(cell: Cell, table: FeatureTable) -> dict[str, np.ndarray]:
    each = [scored(p, table.labels, table.healthy) for p in cell.arrays["probability"]]
    return {metric: np.array([s[metric] for s in each]) for metric in METRICS}
