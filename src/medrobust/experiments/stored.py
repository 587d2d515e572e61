"""What an attacker of image files can do, as part of an audit: smallest and sparsest change, what survives the way."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from medrobust import code_digest
from medrobust.attacks import PGD
from medrobust.data import Dataset
from medrobust.experiments import stored_cells
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.robustness import RobustnessExperiment
from medrobust.experiments.system import groups
from medrobust.store import Cell
from medrobust.transformations import TRANSFORMATIONS

IMAGES = 16
"""Images that are attacked as files."""
MOST = 0.8
"""Share of images that an attack must turn for what is left of it to tell anything."""
STEPS = 10
"""Of PGD, plain and through the transformations."""
OPTIMISED = ("JPEG 90", "JPEG 75", "half size and back, Pillow", "screenshot")
"""Transformations that an attack is optimised through, one at a time."""


class StoredExperiment(Experiment):
    """The smallest eps in whole levels, the fewest pixels changed by one; and attacks after saving and resizing."""

    name = "stored"

    def __init__(self, context: Context, robustness: RobustnessExperiment) -> None:
        self.context, self.robustness, self.seed = context, robustness, context.config.seed

    def steps(self) -> Sequence[Step]:
        needs = tuple(f"sweep {name}" for name in self.robustness.attacks)
        return [
            Step("smallest stored", self._smallest),
            Step("sparsest", self._sparsest),
            Step("survival", self._survived, needs),
        ]

    @cached_property
    def part(self) -> Dataset:
        """Images of the depth that most of them have."""
        sample = self.context.sample
        depths, counts = np.unique(sample.levels, return_counts=True)
        same = sample.select(np.flatnonzero(sample.levels == depths[counts.argmax()]))
        return same.sample(IMAGES, self.seed)

    @property
    def levels(self) -> int:
        """The largest stored value of these images."""
        return int(self.part.levels[0])

    def _smallest(self) -> Cell:
        main, context, levels = self.robustness.main, self.context, self.levels
        attack, eps = self.robustness.attacks[main], self.context.config.eps
        return context.sharded(
            self.part,
            f"{attack.title} in whole stored levels",
            {"kind": "smallest stored", "attack": code_digest.described(attack), "eps": eps, "levels": levels},
            lambda shard, advance: stored_cells.smallest(
                attack, context.attacked, shard, context.ball, eps, levels, self.seed, advance
            ),
        )

    def _sparsest(self) -> Cell:
        classifier, levels = self.context.attacked, self.levels
        return self.context.sharded(
            self.part,
            "The fewest pixels changed by one stored level",
            {"kind": "sparsest", "levels": levels},
            lambda shard, advance: stored_cells.sparse(classifier, shard, levels, self.seed, advance),
        )

    @property
    def _eps(self) -> float | None:
        """The smallest of the grid at which most images are turned, or else the largest; one level at least."""
        min_eps = self.robustness.smallest
        right, grid = min_eps[min_eps > 0], [e for e in self.context.config.eps if e > 0]
        if not grid or not right.size:
            return None
        most = next((e for e in grid if (right <= np.float32(e)).mean() >= MOST), grid[-1])
        return max(most, 1 / self.levels)

    def _survived(self) -> Cell | None:
        classifier, levels, eps, names = self.context.attacked, self.levels, self._eps, tuple(TRANSFORMATIONS)
        if eps is None:
            return None
        ball = self.context.ball(eps)
        return self.context.sharded(
            self.part,
            "Attacked images after saving, compression and resizing",
            {"kind": "survival", "levels": levels, "eps": eps, "names": names, "optimised": OPTIMISED, "steps": STEPS},
            lambda shard, advance: stored_cells.survived(
                PGD(STEPS), classifier, shard, ball, levels, names, self.seed, advance, OPTIMISED
            ),
        )

    def outcome(self) -> ExperimentResult:
        outcome, whose = (
            ExperimentResult(self.context.rows(), on_gradients=("sparsest", "one shot", "pgd")),
            groups(self.part),
        )
        main, largest = self.robustness.main, max(self.context.config.eps)
        here = np.isin(self.context.sample.ids, self.part.ids)
        for levels, min_eps in (
            (stored_cells.CONTINUOUS, self.robustness.min_eps(main)[here]),
            (self.levels, self._smallest().arrays["min_eps"]),
        )[self.context.classifier.stored_levels is not None :]:  # then all attacks are in whole levels
            stored_cells.smallest_row(outcome.rows, main, levels, min_eps, whose, largest)
        cell = self._sparsest()
        stored_cells.sparse_rows(outcome.rows, self.levels, cell.arrays, whose)
        for side in ("clean", "attacked"):
            outcome.pictures[f"sparsest.{side}"] = cell.arrays[f"shown.{side}"][: stored_cells.SHOWN]
        if (survived := self._survived()) is not None and self._eps is not None:
            stored_cells.survival_rows(outcome.rows, "pgd", self._eps, survived.arrays, whose)
        return outcome
