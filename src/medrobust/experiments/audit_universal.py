"""One change for every image, as part of an audit: made from some images, judged on others, beside random changes.

Every goal is one cell: nontargeted, and towards each class where there are few.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from medrobust import code_digest, stats
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.data.splits import deal
from medrobust.experiments.rows import MANY
from medrobust.experiments.system import Subject, groups
from medrobust.images import Lazy
from medrobust.naming import image_code
from medrobust.progress import NoProgress, Progress
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.store import Cell
from medrobust.threat import Ball, Goal, Targeted, Untargeted
from medrobust.training import Pixels
from medrobust.universal import SGA, UniversalMethod, UniversalOutcome, controls, judge

Advance = Callable[[int], None]
Result = tuple[dict[str, Any], dict[str, np.ndarray]]
Compute = Callable[[], Result]

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


def sides(subject: Subject, seed: int) -> Sides | None:
    """Training images against test images; where all images are test images, one half of them against the other.

    None where there are too few images for both.
    """
    data, test = subject.data, subject.test
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


class UniversalPart:
    """The part of an audit that asks for one change for every image.

    cell(images, about, compute) gives a finished piece of work, unfinished(about) a file for where it stands on its
    way. decisions: int64 (n,) on the clean test images.
    """

    def __init__(
        self,
        subject: Subject,
        apart: Sides,
        ball: type[Ball],
        seed: int,
        cell: Callable[[Dataset, dict[str, Any], Compute], Cell],
        unfinished: Callable[[dict[str, Any]], AbstractContextManager[Path]],
        progress: Progress,
        rows: Rows,
        decisions: np.ndarray,
    ) -> None:
        self.subject, self.apart, self.seed, self.cell, self.unfinished = subject, apart, seed, cell, unfinished
        self.progress, self.rows, self.method, self.classes = progress, rows, cheap(), subject.classifier.classes
        self.owners = groups(apart.judged)
        place = {name: i for i, name in enumerate(subject.test.ids)}
        self.clean = decisions[[place[name] for name in apart.judged.ids]]
        self.size = ball.relative(ZETA, self.craft)
        self.eps = float(self.size.eps)

    @cached_property
    def craft(self) -> Lazy:
        """Decoded once: every goal looks at them several times."""
        return Pixels(self.apart.craft, NoProgress(), "images to make it from")

    @cached_property
    def judged(self) -> Lazy:
        return Pixels(self.apart.judged, NoProgress(), "images to judge it on")

    def run(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """What results.json tells of it, and its figures."""
        targets = list(range(len(self.classes))) if len(self.classes) <= MOST_TARGETS else []
        cells: dict[int | None, Cell] = {k: self._made(k) for k in (None, *targets)}
        outcomes = {k: self._outcome(k, c) for k, c in cells.items()}
        for k, outcome in outcomes.items():
            self._add(outcome, *_status(cells[k], outcome))
        random_names = self._random(targets)
        shown = self._shown(outcomes)
        told = self._told(cells, random_names)
        told["examples"] = [
            {
                "target": k,
                "id": image_code(self.apart.judged, i),
                "label": int(self.apart.judged.labels[i]),
                "before": int(self.clean[i]),
                "after": int(outcomes[k].after[i]),
            }
            for k, i in shown
        ]
        clean = self.apart.judged.images([i for _, i in shown]).numpy()
        delta = np.stack([cells[k].arrays["delta"] for k, _ in shown])
        arrays = {"clean": clean, "delta": delta, "attacked": (clean + delta).clip(0, 1)}
        if len(self.classes) <= MANY:
            arrays["confusion"] = np.stack([o.confusion for o in outcomes.values()])
        return told, {f"universal.{name}": array for name, array in arrays.items()}

    def _told(self, cells: dict[int | None, Cell], random_names: list[str]) -> dict[str, Any]:
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
            "controls": random_names,
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
            "made_from": self.subject.images_digest(apart.craft),
        }
        title = "One change for every image" + ("" if target is None else f", to {self.classes[target]}")
        self.progress.start(title, method.work(len(apart.craft)) + len(apart.judged))
        try:
            with self.unfinished(about) as checkpoint:
                return self.cell(
                    apart.judged,
                    about,
                    lambda: made(
                        method,
                        self.subject.classifier,
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

    def _random(self, targets: list[int]) -> list[str]:
        """Rows of the random perturbations; what they are called."""
        about = {"kind": "universal random", "eps": self.eps, "bits": BITS}
        self.progress.start("Random changes of the same size", 3 * len(self.apart.judged))
        try:
            cell = self.cell(
                self.apart.judged,
                about,
                lambda: random(
                    self.subject.classifier, self.judged, self.size, self.clean, self.seed, self.progress.advance
                ),
            )
        finally:
            self.progress.stop()
        names = sorted(cell.arrays)  # a cell that was read has an order of its own
        for name in names:
            after = cell.arrays[name]

            def add(metric: str, share: stats.Estimate, target: str | None = None, name: str = name) -> None:
                self.rows.add(Kind.CONTROL, metric, share, attack=name, eps=self.eps, target=target)

            add("fooling_rate", stats.proportion(after != self.clean, self.owners))
            for k in targets:
                add("targeted_success", stats.proportion(after == k, self.owners), self.classes[k])
                # the control of what a targeted change turns: the same images, those that were not read so before
                others = self.clean != k
                whose = None if self.owners is None else self.owners[others]
                add("targeted_success_new", stats.proportion((after == k)[others], whose), self.classes[k])
        return names

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

    def _add(self, o: UniversalOutcome, status: str, note: str) -> None:
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
                self.rows.add(Kind.UNIVERSAL, metric, estimate, **about)

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
        sick = self.subject.disease_classes
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
