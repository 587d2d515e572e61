"""How well the classifier reads untouched images, and whether its gradient is the one that attacks follow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from medrobust import guessing, stats
from medrobust.experiments import robustness_cells
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.gradient_check import gradient_check
from medrobust.experiments.rows import clean_rows
from medrobust.experiments.system import groups
from medrobust.results import Kind
from medrobust.store import Cell


class CleanExperiment(Experiment):
    """Performance on the whole test split. gradient: also compare the gradient with finite differences.

    Where each set of findings is a class, it is that on the findings.
    """

    name = "clean"

    def __init__(self, context: Context, *, gradient: bool = True) -> None:
        several = context.system.of_findings
        self.context, self.gradient = context if several is None else context.of(several), gradient

    def steps(self) -> Sequence[Step]:
        check = [Step("gradient check", self.context.gradient_cell)] if self.gradient else []
        return [Step("clean", lambda: self.cell), *check]

    @cached_property
    def cell(self) -> Cell:
        """probability (n, k), decision (n,) and saved (n,), the decision after saving at 8 bits."""
        classifier = self.context.classifier
        return self.context.sharded(
            self.context.test,
            "Clean performance",
            {"kind": "clean"},
            lambda shard, advance: robustness_cells.clean(classifier, shard, advance),
        )

    @cached_property
    def guessing(self) -> guessing.Guessing:
        """Whether the classifier is better than an answer that never changes."""
        test = self.context.test
        return guessing.of(self.cell.arrays["decision"] == test.labels, test.labels, groups(test))

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.context.rows(), guesses=self.guessing.text)
        test, classifier = self.context.test, self.context.classifier
        arrays, patients = self.cell.arrays, groups(test)
        scored = not classifier.labels_only
        if not scored:
            why = "the classifier answers with labels, which have no scores behind them"
            outcome.left_out = [(part, why) for part in ("AUROC", "calibration", "Brier score")]
        clean_rows(
            outcome.rows,
            arrays["probability"] if scored else None,
            test.labels,
            arrays["decision"],
            classifier.classes,
            patients,
            self.context.config.ordinal,
            arrays.get("right"),
        )
        saved = stats.proportion(guessing.right(arrays["saved"], test.labels), patients)
        outcome.rows.add(Kind.CLEAN, "accuracy_saved", saved, bits=8)
        outcome.checks = [self.context.system.admitted.order]
        if self.gradient:
            outcome.checks.append(gradient_check(self.context.gradient_cell()))
        outcome.arrays = {"test_labels": test.labels, "test_prediction": arrays["decision"]}
        if scored:
            outcome.arrays["test_probability"] = arrays["probability"].astype(np.float32)
        return outcome
