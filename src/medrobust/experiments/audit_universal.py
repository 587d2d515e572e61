"""One change for every image, as part of an audit: made from some images, judged on others, beside random changes.

Every goal is one cell: nontargeted, and towards each class where there are few.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import code_digest, stats
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.splits import deal
from medrobust.experiments.context import Advance, Context, Experiment, Outcome, Result, Step
from medrobust.experiments.robustness import Robustness
from medrobust.experiments.rows import MANY
from medrobust.experiments.system import System, groups
from medrobust.images import Lazy
from medrobust.naming import image_code
from medrobust.progress import NoProgress
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.store import Cell
from medrobust.threat import Ball, Goal, Targeted, Untargeted
from medrobust.training import Pixels
from medrobust.universal import SGA, UniversalMethod, UniversalOutcome, controls, judge

ZETA = 0.04
"""Size of the change as a share of the mean norm of an image: the headline of Hirano et al. 2021."""
CRAFT, JUDGED = 200, 200
"""Images it is made from and judged on, at most."""
MOST_TARGETS = 4
"""With more classes only the nontargeted one is made."""
BITS = 8
NAME = "sga"
"""The method, as the rows name it."""


@dataclass(frozen=True)
class Sides:
    """The images it is made from, those it is judged on, and in words where the first come from."""

    craft: Dataset
    judged: Dataset
    origin: str


def sides(system: System, seed: int) -> Sides | None:
    """Training images against test images; where all images are test images, one half of them against the other.

    None where there are too few images for both.
    """
    data, test = system.data, system.test
    unseen = set(test.ids)
    known = [i for i, name in enumerate(data.ids) if name not in unseen]
    if known:
        train = [i for i in known if data.sides[i] == "train"]
        craft, origin = data.select(train or known), "training images" if train else "validation images"
        return Sides(craft.sample(CRAFT, seed), test.sample(JUDGED, seed), origin)
    owners = groups(test)
    half = deal(list(test.ids if owners is None else owners), test.labels, {"craft": 0.5, "judge": 0.5}, seed)
    parts = [test.select(np.flatnonzero(half == name)) for name in ("craft", "judge")]
    if not all(len(p) for p in parts):
        return None
    return Sides(parts[0].sample(CRAFT, seed), parts[1].sample(JUDGED, seed), "test images that it is not judged on")


def cheap() -> UniversalMethod:
    """Strong enough for a first answer within seconds: three gradients an image."""
    return SGA(passes=3)


def made(
    method: UniversalMethod,
    classifier: Classifier,
    craft: Lazy,
    judged: Lazy,
    goal: Goal,
    ball: Ball,
    clean: np.ndarray,
    seed: int,
    advance: Advance,
    checkpoint: Path,
) -> Result:
    """One perturbation from ``craft`` and what it does to ``judged``. clean: their decisions without it."""
    v = method(classifier, craft, goal, ball, seed=seed, advance=advance, checkpoint=checkpoint)
    outcome = judge(classifier, judged, v, bits=BITS, clean=clean)
    advance(len(judged))
    facts = {"why": v.why, "moved": v.moved, "size": v.size, "legal": bool(outcome.legal), "history": v.history}
    facts |= {k: v.provenance[k] for k in ("gradients", "queries")}
    return facts, {"delta": v.delta.numpy(), "after": outcome.after, "saved": outcome.after_saving}


def random(classifier: Classifier, judged: Lazy, ball: Ball, clean: np.ndarray, seed: int, advance: Advance) -> Result:
    """The control: decisions (n,) under random perturbations of exactly the same size, by name."""
    arrays = {}
    for v in controls(classifier, judged, ball, seed):
        arrays[str(v.provenance["method"])] = judge(classifier, judged, v, bits=BITS, clean=clean).after
        advance(len(judged))
    return {}, arrays


class UniversalExperiment(Experiment):
    """One perturbation for all images, for every goal, beside random ones of the same size."""

    name = "universal"

    def __init__(self, context: Context, robustness: Robustness) -> None:
        self.context, self.system, self.robustness = context, context.system, robustness
        self.seed, self.progress = context.config.seed, context.progress
        self.method, self.classes = cheap(), context.classifier.classes
        self.targets = list(range(len(self.classes))) if len(self.classes) <= MOST_TARGETS else []

    def steps(self) -> Sequence[Step]:
        goals = [Step(f"universal {self._title(k)}", partial(self._made, k), ("clean",)) for k in (None, *self.targets)]
        return [*goals, Step("universal random", self._random_cell, ("clean",))] if self.sides else []

    def outcome(self) -> Outcome:
        outcome = Outcome(self.context.rows())
        if self.sides is None:  # too few images for both
            return outcome
        cells = {k: self._made(k) for k in (None, *self.targets)}
        outcomes = {k: self._outcome(k, cell) for k, cell in cells.items()}
        for k, judged in outcomes.items():
            self._add(outcome.rows, judged, *_status(cells[k], judged))
        self._random(outcome.rows)
        shown = self._shown(outcomes)
        clean = self.apart.judged.images([i for _, i in shown]).numpy()
        delta = np.stack([cells[k].arrays["delta"] for k, _ in shown])
        arrays = {"clean": clean, "delta": delta, "attacked": (clean + delta).clip(0, 1)}
        if len(self.classes) <= MANY:
            arrays["confusion"] = np.stack([o.confusion for o in outcomes.values()])
        outcome.arrays = {f"universal.{name}": array for name, array in arrays.items()}
        outcome.conditions["universal"] = self._info(cells) | {"examples": self._examples(shown, outcomes)}
        return outcome

    @cached_property
    def sides(self) -> Sides | None:
        """The images it is made from and those it is judged on; None where there are too few for both."""
        return sides(self.system, self.seed)

    @property
    def apart(self) -> Sides:
        assert self.sides is not None
        return self.sides

    @cached_property
    def owners(self) -> np.ndarray | None:
        return groups(self.apart.judged)

    @cached_property
    def clean(self) -> np.ndarray:
        """int64 (n,): decisions on the judged images without a perturbation."""
        place = {name: i for i, name in enumerate(self.system.test.ids)}
        decisions = self.robustness.clean.cell.arrays["decision"]
        return np.asarray(decisions[[place[name] for name in self.apart.judged.ids]])

    @cached_property
    def size(self) -> Ball:
        return self.context.ball.relative(ZETA, self.craft)

    @property
    def eps(self) -> float:
        return float(self.size.eps)

    def _title(self, target: int | None) -> str:
        return "nontargeted" if target is None else self.classes[target]

    @cached_property
    def craft(self) -> Lazy:
        """Decoded once: every goal looks at them several times."""
        return Pixels(self.apart.craft, NoProgress(), "images to make it from")

    @cached_property
    def judged(self) -> Lazy:
        return Pixels(self.apart.judged, NoProgress(), "images to judge it on")

    def _examples(
        self, shown: Sequence[tuple[int | None, int]], outcomes: Mapping[int | None, UniversalOutcome]
    ) -> list[dict[str, Any]]:
        judged = self.apart.judged
        return [
            {
                "target": k,
                "id": image_code(judged, i),
                "label": int(judged.labels[i]),
                "before": int(self.clean[i]),
                "after": int(outcomes[k].after[i]),
            }
            for k, i in shown
        ]

    def _info(self, cells: Mapping[int | None, Cell]) -> dict[str, Any]:
        """How it was made, for results.json."""
        facts = ("moved", "why", "legal", "gradients", "queries")
        return {
            "title": self.method.title,
            "source": self.method.source,
            "settings": self.method.settings,
            "zeta": ZETA,
            "eps": self.eps,
            "made_from": self.apart.origin,
            "n_made": len(self.apart.craft),
            "n_judged": len(self.apart.judged),
            "bits": BITS,
            "controls": sorted(self._random_cell().arrays),
            "goals": [{"target": k, **{name: c.facts[name] for name in facts}} for k, c in cells.items()],
        }

    # -- pieces of work ----------------------------------------------------------------------------------

    def _made(self, target: int | None) -> Cell:
        method, apart = self.method, self.apart
        goal: Goal = Untargeted() if target is None else Targeted(target)
        about = {
            "kind": "universal",
            "method": code_digest.described(method),
            "target": target,
            "eps": self.eps,
            "bits": BITS,
            "made_from": self.system.images_digest(apart.craft),
        }
        title = "One change for every image" + ("" if target is None else f", to {self.classes[target]}")
        self.progress.start(title, method.work(len(apart.craft)) + len(apart.judged))
        try:
            with self.context.store.unfinished(about) as checkpoint:
                return self.context.cell(
                    apart.judged,
                    about,
                    lambda: made(
                        method,
                        self.system.classifier,
                        self.craft,
                        self.judged,
                        goal,
                        self.size,
                        self.clean,
                        self.seed,
                        self.progress.advance,
                        checkpoint,
                    ),
                )
        finally:
            self.progress.stop()

    def _random_cell(self) -> Cell:
        """Decisions under random perturbations, by their kind."""
        about = {"kind": "universal random", "eps": self.eps, "bits": BITS}
        self.progress.start("Random changes of the same size", 3 * len(self.apart.judged))
        try:
            return self.context.cell(
                self.apart.judged,
                about,
                lambda: random(
                    self.context.classifier, self.judged, self.size, self.clean, self.seed, self.progress.advance
                ),
            )
        finally:
            self.progress.stop()

    def _random(self, rows: Rows) -> None:
        """Rows of the random perturbations."""
        cell = self._random_cell()
        for name in sorted(cell.arrays):  # a cell that was read has an order of its own
            after = cell.arrays[name]

            def add(metric: str, share: stats.Estimate, target: str | None = None, name: str = name) -> None:
                rows.add(Kind.CONTROL, metric, share, attack=name, eps=self.eps, target=target)

            add("fooling_rate", stats.proportion(after != self.clean, self.owners))
            for k in self.targets:
                add("targeted_success", stats.proportion(after == k, self.owners), self.classes[k])
                # the control of what a targeted change turns: the same images, those that were not read so before
                others = self.clean != k
                whose = None if self.owners is None else self.owners[others]
                add("targeted_success_new", stats.proportion((after == k)[others], whose), self.classes[k])

    # -- what it means -----------------------------------------------------------------------------------

    def _outcome(self, target: int | None, cell: Cell) -> UniversalOutcome:
        return UniversalOutcome(
            clean=self.clean,
            after=cell.arrays["after"],
            after_saving=cell.arrays["saved"],
            classes=self.classes,
            target=target,
            legal=cell.facts["legal"],
            bits=BITS,
            labels=self.apart.judged.labels,
            groups=None if self.owners is None else tuple(self.owners),
        )

    def _add(self, rows: Rows, o: UniversalOutcome, status: str, note: str) -> None:
        target = None if o.target is None else self.classes[o.target]

        def add(metric: str, estimate: stats.Estimate | None, **more: Any) -> None:
            if estimate is not None:
                about: dict[str, Any] = more | {
                    "attack": NAME,
                    "eps": self.eps,
                    "status": status,
                    "note": note,
                    "target": target,
                }
                rows.add(Kind.UNIVERSAL, metric, estimate, **about)

        if target is not None:
            add("targeted_success", o.targeted_success)
            add("targeted_base", o.targeted_base)
            add("targeted_success_new", o.targeted_success_new)
            add("targeted_success_saved", o.targeted_success_saved, bits=BITS)
            return
        add("fooling_rate", o.fooling_rate)
        add("fooling_rate_saved", o.fooling_rate_saved, bits=BITS)
        add("fooling_cap", o.cap)
        add("accuracy_before", o.accuracy_before)
        add("accuracy_after", o.accuracy_after)
        if len(self.classes) <= MANY:
            for name, estimate in o.fooling_rate_per_class.items():
                add("fooling_rate", estimate, class_name=name)

    def _shown(self, outcomes: dict[int | None, UniversalOutcome]) -> list[tuple[int | None, int]]:
        """(goal, image) for the figure: the nontargeted one, and the target that would hide a disease, or works best.

        An image that was read rightly and is turned, of a disease where there is one.
        """
        sick = self.system.disease_classes
        aims = [k for k in outcomes if k is not None]
        well = [k for k in aims if sick and k not in sick]

        def gain(k: int | None) -> float:
            new = outcomes[k].targeted_success_new
            return new.value if new is not None and new.n else 0.0

        chosen: list[int | None] = [None, *([max(well or aims, key=gain)] if aims else [])]
        labels, shown = self.apart.judged.labels, []
        for k in chosen:
            turned = (self.clean == labels) & outcomes[k].fooled
            ill = turned & np.isin(labels, list(sick))
            found = next((hits for hits in (ill, turned, outcomes[k].fooled) if hits.any()), np.ones(len(labels), bool))
            shown.append((k, int(np.flatnonzero(found)[0])))
        return shown


def _status(cell: Cell, outcome: UniversalOutcome) -> tuple[str, str]:
    """A perturbation that did not leave zero shows no strength, unless there was nothing to do."""
    rate = outcome.fooling_rate if outcome.target is None else outcome.targeted_success
    assert rate is not None
    if not cell.facts["moved"] and rate.value < 1:
        return INCONCLUSIVE, cell.facts["why"]
    if not cell.facts["legal"]:
        return INCONCLUSIVE, "the perturbation is larger than it may be"
    return OK, ""
