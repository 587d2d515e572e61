"""What natural corruptions cost: accuracy and sensitivity at five severities, beside what an attack costs.

After Hendrycks & Dietterich 2019 (arXiv:1903.12261). Only forward passes: five an image and corruption.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from medrobust import guessing, stats
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.corruptions import SEVERITIES, Corruption, corrupt, corruption_set, medmnist_c, medmnist_c_name
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step
from medrobust.experiments.rows import MANY
from medrobust.experiments.system import groups
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.stats import Estimate, Groups
from medrobust.store import Cell, Result

UNTOUCHED = "none"
"""Stands as the corruption at severity 0."""
FEWEST = 40
"""Of more attacked images, half are corrupted, and no fewer than these: passes of about 3 % of an audit's time."""


def corrupted(
    classifier: Classifier, part: Dataset, name: str, table: Mapping[str, Corruption], seed: int, advance: Advance
) -> Result:
    """Decisions at each severity, (n, 5); of several findings (n, 5, k). part: images of one size.

    What is shown of the files is corrupted, before any preprocessing of the classifier.
    """
    classifier = classifier.of_pictures()
    images, _ = part.shown().tensors()
    changed = torch.cat([corrupt(images, name, severity, seed, part.ids, table) for severity in SEVERITIES])
    decided = classifier.predict(changed).numpy().reshape(len(SEVERITIES), len(images), *part.labels.shape[1:])
    advance(len(changed))
    return {}, {"decision": decided.swapaxes(0, 1)}


def untouched_rows(rows: Rows, before: np.ndarray, labels: np.ndarray, patients: Groups) -> None:
    """Performance on the same images as they are: what the corruptions are compared with."""
    share = stats.proportion(guessing.right(before, labels), patients)
    balanced = guessing.of(before == labels, labels, patients).balanced
    for metric, estimate in (("accuracy", share), ("balanced_accuracy", balanced)):
        rows.add(Kind.CORRUPTION, metric, estimate, corruption=UNTOUCHED, severity=0)


def corruption_rows(
    rows: Rows,
    name: str,
    decisions: np.ndarray,
    before: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    patients: Groups,
) -> None:
    """Accuracy, what of it is lost on the same images, balanced accuracy and each sensitivity, at every severity.

    decisions: (n, 5) or (n, 5, k). before: of the untouched images, (n,) or (n, k). labels: as ``before``.
    """
    right_before = guessing.right(before, labels)
    for place, severity in enumerate(SEVERITIES):
        decided = decisions[:, place]
        right = guessing.right(decided, labels)
        measured = {
            "accuracy": stats.proportion(right, patients),
            "accuracy_lost": stats.mean(right_before.astype(float) - right, patients),
            "balanced_accuracy": guessing.of(decided == labels, labels, patients).balanced,
        }
        for metric, estimate in measured.items():
            rows.add(Kind.CORRUPTION, metric, estimate, corruption=name, severity=severity)
        for k, class_name in enumerate(classes if len(classes) <= MANY else ()):
            hits, present = decided == labels, labels == k
            if labels.ndim == 2:
                hits, present = hits[:, k], labels[:, k] == 1
            share = stats.proportion(hits[present], stats.members(patients, present))
            rows.add(Kind.CORRUPTION, "sensitivity", share, corruption=name, severity=severity, class_name=class_name)


def balanced_error_rows(rows: Rows, name: str, sides: Collection[int]) -> None:
    """BE and rBE of MedMNIST-C for its data set ``name``, from the balanced accuracies in ``rows``.

    sides: of the images, in pixels; of another size than MedMNIST-C's, what is divided by AlexNet's errors proves
    nothing. Each end of an interval is made of the ends of the balanced accuracies: no dependence makes it wider.
    """
    balanced = {
        (str(r.get("corruption")), int(r.get("severity"))): r.estimate
        for r in rows.rows
        if r.kind == Kind.CORRUPTION and r.metric == "balanced_accuracy"
    }
    clean = balanced[UNTOUCHED, 0]
    names = [kind for kind, severity in balanced if severity == SEVERITIES[0]]
    baseline = medmnist_c.ALEXNET[name]
    value, one, other = (
        medmnist_c.balanced_errors(
            clean[i], {kind: [balanced[kind, severity][j] for severity in SEVERITIES] for kind in names}, baseline
        )
        for i, j in ((0, 0), (1, 2), (2, 1))
    )
    other_size = [side for side in sides if side != medmnist_c.SIDE]
    note = (
        f"images of {max(sides)} pixels; parameters and AlexNet's errors are for {medmnist_c.SIDE}"
        if other_size
        else ""
    )
    status = INCONCLUSIVE if other_size else OK
    for metric, field in (("balanced_error", "balanced"), ("relative_balanced_error", "relative")):
        middle, ends = getattr(value, field), (getattr(one, field), getattr(other, field))
        each = {}
        for kind in names:
            low, high = sorted(end[kind] for end in ends)
            each[kind] = Estimate(middle[kind], low, high, clean.n)
            rows.add(Kind.CORRUPTION, metric, each[kind], corruption=kind, status=status, note=note)
        mean = guessing.mean_of(list(each.values()), clean.n)
        rows.add(Kind.CORRUPTION, metric, mean, status=status, note=note)


class CorruptionsExperiment(Experiment):
    """Every corruption of a set at five severities, on half of the attacked images."""

    name = "corruptions"

    def __init__(self, context: Context, clean: CleanExperiment) -> None:
        self.context, self.clean = context, clean
        self.table = corruption_set(context.config.corruptions, context.sample.channels)
        self.part = context.sample.sample(max(FEWEST, len(context.sample) // 2), context.config.seed)

    def steps(self) -> Sequence[Step]:
        return [Step(f"corruption {name}", partial(self.cell, name), ("clean",)) for name in self.table]

    def cell(self, name: str) -> Cell:
        """``corrupted`` of one corruption."""
        context, chosen = self.context, self.table[name]
        return context.sharded(
            self.part,
            f"Natural corruption: {chosen.title}",
            {"kind": "corruption", "corruption": name, "set": context.config.corruptions},
            lambda shard, advance: corrupted(context.classifier, shard, name, self.table, context.config.seed, advance),
            total=len(self.part) * len(SEVERITIES),
        )

    def before(self) -> np.ndarray:
        """Decisions on the untouched images, (n,) or (n, k)."""
        place = {name: i for i, name in enumerate(self.context.test.ids)}
        decisions: np.ndarray = self.clean.cell.arrays["decision"]
        return decisions[[place[name] for name in self.part.ids]]

    def outcome(self) -> ExperimentResult:
        outcome, before = ExperimentResult(self.context.rows()), self.before()
        labels, patients, classes = self.part.labels, groups(self.part), self.context.classifier.classes
        untouched_rows(outcome.rows, before, labels, patients)
        for name in self.table:
            decisions = self.cell(name).arrays["decision"]
            corruption_rows(outcome.rows, name, decisions, before, labels, classes, patients)
        if (dataset := medmnist_c_name(self.context.config.corruptions)) is not None:
            balanced_error_rows(outcome.rows, dataset, {side for shape in self.part.shapes for side in shape})
        outcome.conditions["corruptions"] = {
            "chosen": self.context.config.corruptions,
            "titles": {name: corruption.title for name, corruption in self.table.items()},
            "n": len(self.part),
            "dataset": dataset,
            "left_out": medmnist_c.LEFT_OUT.get(dataset or "", ""),
        }
        return outcome
