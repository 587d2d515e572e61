"""Can the attacks of a run be believed? The main attack again from nothing, and what is left of it after saving.

The checks are those of Carlini et al. 2019 (arXiv:1902.06705).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from functools import cached_property, partial
from typing import Any

from medrobust import code_digest
from medrobust.attacks import Attack, Composed
from medrobust.data import Dataset
from medrobust.experiments import checks, robustness_cells
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.robustness import RobustnessExperiment
from medrobust.experiments.rows import saving_rows
from medrobust.experiments.system import groups
from medrobust.results import Check
from medrobust.store import Cell

CHECKED = 24
"""Images for the sanity checks, which attack from nothing again and again."""
SAVED = 32
"""Images for the examples at full strength that are then saved."""
SAVED_GREYS = (0.3, 1.0, 2.0)
"""Below half a grey level, where 8-bit saving must undo everything; one level; two."""


class SanityExperiment(Experiment):
    """Sanity checks of the main attack, and its examples after saving."""

    name = "sanity"

    def __init__(self, context: Context, robustness: RobustnessExperiment) -> None:
        self.context, self.config, self.robustness = context, context.config, robustness
        self.main, self.attack = robustness.main, robustness.attacks[robustness.main]

    def steps(self) -> Sequence[Step]:
        needs = (f"sweep {self.main}",)
        checked = [Step(f"sanity {title}", partial(self._reached, title), needs) for title in self._titles]
        return [
            *checked,
            *(Step(f"saving {self.context.grey_scale.text(e)}", partial(self._saved, e)) for e in self._saving_eps),
        ]

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.context.rows(), self._checks())
        if self._huge_check.passed is False:
            outcome.doubts[self.main] = "a huge eps does not reach 100 %"
        self._saving_part(outcome)
        return outcome

    @cached_property
    def _subset(self) -> Dataset:
        return self.context.sample.sample(CHECKED, self.config.seed)

    @property
    def _titles(self) -> list[str]:
        """Attacks from nothing whose outcome is known beforehand, by title."""
        attack = self.attack
        whole = isinstance(attack, Composed) or type(attack).__name__ == "APGD"  # their steps are no free choice
        free = not attack.minimal and attack.steps > 1 and not whole
        steps = ["fewer steps", "more steps"] if free else []
        return ["eps 0", "half of a typical eps", "a typical eps", "twice a typical eps", "a huge eps", *steps]

    def _reached(self, title: str) -> Cell:
        attack, eps = self.attack, self.robustness.typical_eps
        factors = {"eps 0": 0.0, "half of a typical eps": 0.5, "twice a typical eps": 2.0}
        if title == "a huge eps":
            eps = self._huge
        elif title in factors:
            eps = eps * factors[title]
        elif title == "fewer steps":
            attack = _with_steps(attack, max(1, attack.steps // 4))
        elif title == "more steps":
            attack = _with_steps(attack, attack.steps * 4)
        return self.robustness.fixed(title, attack, self._subset, self.context.ball(eps))

    @property
    def _huge(self) -> float:
        part = self._subset
        return 0.5 if self.config.norm == "linf" else 0.25 * float(math.prod(part.largest)) ** 0.5

    @property
    def _saving_eps(self) -> tuple[float, ...]:
        if self.config.norm != "linf":
            return ()
        eps, levels = [g * self.context.grey_scale.grey for g in SAVED_GREYS], self.context.sample.attacked_levels
        # of DICOM files in whole stored levels
        return tuple(eps if levels is None else sorted({max(1, round(e * levels)) / levels for e in eps}))

    def _saved(self, eps: float) -> Cell:
        """What is left of full-strength examples once they are stored as image files are."""
        attack, context, seed = self.attack, self.context, self.config.seed
        return context.sharded(
            context.sample.sample(SAVED, seed),
            f"Saving attacked images ({context.grey_scale.text(eps)})",
            {"kind": "saving", "attack": code_digest.described(attack), "eps": eps},
            lambda shard, advance: robustness_cells.saving(
                attack, context.attacked, shard, context.ball(eps), seed, advance, context.classifier
            ),
        )

    @property
    def _huge_check(self) -> Check:
        attack = self.attack
        # one step, or a search for the smallest change, may miss at a huge eps by its own fault
        shared = attack.title if attack.uses_gradient and attack.steps > 1 and not attack.minimal else ""
        reached = self._reached("a huge eps").arrays["reached"]
        place = {image_id: i for i, image_id in enumerate(self.context.sample.ids)}
        smallest = self.robustness.min_eps(self.main)[[place[i] for i in self._subset.ids]]
        return checks.huge_eps(
            self.main, self._huge, reached, smaller=smallest <= self._huge, shared=shared, scale=self.context.grey_scale
        )

    def _checks(self) -> list[Check]:
        """Of the main attack on a few images, attacked again from nothing."""
        name, attack, middle, robustness = self.main, self.attack, self.robustness.typical_eps, self.robustness
        scale = self.context.grey_scale
        cells = {title: self._reached(title) for title in self._titles}
        before = cells["eps 0"].arrays["before"]
        # an image that was wrong before is no success
        success = {title: ~before & cell.arrays["reached"] for title, cell in cells.items()}
        growing = ("half of a typical eps", "a typical eps", "twice a typical eps")
        checks_ = [
            checks.zero_eps(name, cells["eps 0"].arrays["reached"], before),
            checks.grows_with_eps(name, [middle / 2, middle, middle * 2], [success[t] for t in growing], scale),
            self._huge_check,
        ]
        if "more steps" in success:
            counts = [max(1, attack.steps // 4), attack.steps, attack.steps * 4]
            titles = ("fewer steps", "a typical eps", "more steps")
            checks_.append(checks.grows_with_steps(name, counts, [success[t] for t in titles]))
        if "fgsm" in robustness.attacks:
            one = robustness.min_eps("fgsm")
            checks_ += [
                checks.single_step_is_weaker(
                    many, self.config.eps, one, robustness.min_eps(many), scale, robustness.shares("fgsm", many)
                )
                for many in robustness.attacks
                if many != "fgsm" and robustness.attacks[many].steps > 1
            ]
        return checks_

    def _saving_part(self, outcome: ExperimentResult) -> None:
        patients = groups(self.context.sample.sample(SAVED, self.config.seed))
        for eps in self._saving_eps:
            saving_rows(outcome.rows, self.main, eps, self._saved(eps).arrays, patients)


def _with_steps(attack: Attack, steps: int) -> Attack:
    other: Any = copy.copy(attack)
    other.steps = steps
    result: Attack = other
    return result
