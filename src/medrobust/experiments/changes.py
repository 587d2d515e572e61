"""Changes beyond small ones of every pixel: patches, rotations, smooth changes of intensity; and their controls."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np

from medrobust import code_digest, guessing, stats
from medrobust.attacks import ParametricChange, worst_change
from medrobust.attacks.drawn import followed
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments.conditions import described
from medrobust.experiments.config import change_named
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step
from medrobust.experiments.robustness_cells import shown_images
from medrobust.experiments.system import groups
from medrobust.judging import judge
from medrobust.results import Kind, Rows
from medrobust.stats import Groups
from medrobust.store import Cell, Result
from medrobust.threat import Linf, Untargeted

FEWEST = 40
"""Of more attacked images, half are changed, and no fewer than these."""
SHOWN = 1
"""Turned images of each change that are kept for the page."""
OPTIMISED = "optimised"
"""How images were made that the attack chose; other values of the column ``made`` are controls."""


def changed(
    change: ParametricChange, attacked: Classifier, classifier: Classifier, part: Dataset, seed: int, advance: Advance
) -> Result:
    """The worst change of each image, judged by ``classifier``, and what its controls turn: shares of draws, (n,).

    attacked: as the search sees the classifier. part: images of one size; what is shown of them is changed.
    """
    shown, classifier = part.shown(), classifier.of_pictures()
    images, labels = shown.tensors()
    goal, random = Untargeted(labels), classifier.draws is not None  # then the first success may be one by chance
    found = worst_change(change, followed(attacked.of_pictures()), images, goal, seed=seed, ids=part.ids, full=random)
    outcome = judge(classifier, images, found.images, goal, Linf(1.0))
    arrays = {"reached": outcome.reached.numpy(), "before": outcome.reached_before.numpy()}
    for name, draws in change.controls(found.parameters, images, seed, part.ids).items():
        decided = [classifier.predict(change.apply(images, one)).numpy() for one in draws]
        arrays[f"control.{name}"] = np.mean([~guessing.right(one, part.labels) for one in decided], 0)
    turned = (outcome.reached & ~outcome.reached_before).nonzero()[:SHOWN, 0].tolist()
    examples = [
        {
            "words": change.words(found.parameters[i], images[i]),
            "before": outcome.before[i].tolist(),
            "after": outcome.after[i].tolist(),
        }
        for i in turned
    ]
    advance(len(images))
    return {"examples": examples}, {
        **arrays,
        "shown.clean": shown_images(images[turned], shown).numpy(),
        "shown.changed": shown_images(found.images[turned], shown).numpy(),
        "passes": (found.gradients + found.forwards).numpy(),
    }


def change_rows(rows: Rows, name: str, arrays: dict[str, np.ndarray], patients: Groups) -> None:
    """Accuracy under a change, and of the images read correctly before the share that it turns; its controls.

    name: of the change as it was asked for. arrays: of ``changed``.
    """
    right = ~arrays["before"]
    whose = stats.members(patients, right)
    for metric, share in (
        ("accuracy", stats.proportion(~arrays["reached"], patients)),
        ("success", stats.proportion(arrays["reached"][right], whose)),
    ):
        rows.add(Kind.CHANGE, metric, share, attack=name, change=name, made=OPTIMISED)
    for key in sorted(k for k in arrays if k.startswith("control.")):
        share = stats.proportion(arrays[key][right], whose)  # of shares: wider than it need be
        rows.add(Kind.CHANGE, "success", share, attack="random", change=name, made=key.removeprefix("control."))


class ChangesExperiment(Experiment):
    """Every change that was asked for, on half of the attacked images."""

    name = "changes"

    def __init__(self, context: Context) -> None:
        self.context, self.seed = context, context.config.seed
        self.changes = {name: change_named(name) for name in context.config.changes}

    @cached_property
    def part(self) -> Dataset:
        sample = self.context.sample
        return sample.sample(max(FEWEST, len(sample) // 2), self.seed)

    def steps(self) -> Sequence[Step]:
        return [Step(f"change {name}", partial(self._cell, name), ("gradient check",)) for name in self.changes]

    def _cell(self, name: str) -> Cell:
        change, context = self.changes[name], self.context
        return context.sharded(
            self.part,
            change.title,
            {"kind": "change", "change": code_digest.described(change)},
            lambda shard, advance: changed(change, context.attacked, context.classifier, shard, self.seed, advance),
        )

    def outcome(self) -> ExperimentResult:
        outcome, patients = ExperimentResult(self.context.rows()), groups(self.part)
        stated: dict[str, object] = {}
        for name, change in self.changes.items():
            cell = self._cell(name)
            change_rows(outcome.rows, name, dict(cell.arrays), patients)
            examples = cell.fact("examples", list)[:SHOWN]
            stated[name] = {**described(change), "range": change.range, "examples": examples}
            for side in ("clean", "changed"):
                outcome.pictures[f"changes.{name}.{side}"] = cell.arrays[f"shown.{side}"][:SHOWN]
        outcome.conditions["changes"] = stated
        if not self.context.classifier.black_box:
            outcome.on_gradients = tuple(self.changes)
        return outcome
