"""How small a change fools the classifier: attacks image by image over a grid of eps, random noise.

The protocol of Ma et al. 2020 (arXiv:1907.10456).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property, partial

import numpy as np

from medrobust import code_digest, guessing, stats
from medrobust.attacks import Attack
from medrobust.data import Dataset
from medrobust.experiments import checks, robustness_cells
from medrobust.experiments.clean import CleanExperiment
from medrobust.experiments.conditions import described
from medrobust.experiments.config import attack_named
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step, attacks_of, main_attack
from medrobust.experiments.identity import identify
from medrobust.experiments.rows import attack_rows, noise_rows
from medrobust.grey_scale import reported_size
from medrobust.results import Kind, withstands
from medrobust.store import Cell, Result
from medrobust.threat import Ball

NEAR = 0.05
"""How far, of one grey level, a size in whole stored levels may lie from it and stand for it."""
NO_GRADIENT = "most images gave no usable gradient"


class RobustnessExperiment(Experiment):
    """Clean performance, every attack over the grid, and noise of the same size."""

    name = "robustness"

    def __init__(self, context: Context) -> None:
        self.context, self.config = context, context.config
        self.attacks = attacks_of(context.config)
        self.main = main_attack(list(self.attacks))
        self.clean = CleanExperiment(context, gradient=not context.classifier.black_box)

    def steps(self) -> Sequence[Step]:
        sweeps = [
            Step(
                f"sweep {name}",
                partial(self.sweep, name),
                ("gradient check", *(f"sweep {b}" for b in self._before(name))),
            )
            for name in self.attacks
        ]
        return [*self.clean.steps(), *sweeps, Step("noise", self.noise)]

    # -- cells -------------------------------------------------------------------------------------------

    def _before(self, name: str) -> list[str]:
        """The sweeps that a random start begins from: where many-step attacks have broken an image already."""
        names = list(self.attacks)
        if not self.attacks[name].random_start:
            return []
        return [b for b in names[: names.index(name)] if self.attacks[b].steps > 1]

    def sweep(self, name: str) -> Cell:
        """One attack over the grid: the smallest eps that fools each image, among others."""
        if name not in self._sweeps:
            self._sweeps[name] = self._swept(name)
        return self._sweeps[name]

    @cached_property
    def _sweeps(self) -> dict[str, Cell]:
        return {}

    def _swept(self, name: str) -> Cell:
        attack, config, context = self.attacks[name], self.config, self.context
        before = self._before(name)
        near = np.stack([self.min_eps(b) for b in before]).min(0) if before else None
        place = {image_id: i for i, image_id in enumerate(context.sample.ids)}

        def compute(shard: Dataset, advance: Advance) -> Result:
            start = None if near is None else near[[place[i] for i in shard.ids]]
            return robustness_cells.swept(
                context.started(attack),
                context.attacked,
                shard,
                context.ball,
                config.eps,
                start,
                config.seed,
                advance,
                context.classifier,
            )

        key = {
            "kind": "sweep",
            "attack": code_digest.described(attack),
            "eps": config.eps,
            "after": [code_digest.described(self.attacks[b]) for b in before],
            "search": "line" if attack.steps == 1 else "follow, again below",
        }
        return context.sharded(context.sample, f"{attack.title} over {len(config.eps)} epsilons", key, compute)

    def noise(self) -> Cell:
        """Decisions under random noise, (n, len(eps))."""
        context, config = self.context, self.config
        return context.sharded(
            context.sample,
            "Random noise of the same size",
            {"kind": "noise", "eps": config.eps},
            lambda shard, advance: robustness_cells.noise(
                context.classifier, shard, context.ball, config.eps, config.seed, advance
            ),
            total=len(context.sample) * len(config.eps),
        )

    def fixed(self, title: str, attack: Attack, part: Dataset, ball: Ball) -> Cell:
        """One attack at one eps from nothing, judged."""
        classifier, judged, seed = self.context.attacked, self.context.classifier, self.config.seed
        return self.context.sharded(
            part,
            f"Sanity of {attack.title}: {title}",
            {"kind": "fixed", "attack": code_digest.described(attack), "eps": float(ball.eps)},
            lambda shard, advance: robustness_cells.fixed(
                self.context.started(attack), classifier, shard, ball, seed, advance, judged
            ),
        )

    # -- what others build on ----------------------------------------------------------------------------

    def min_eps(self, name: str) -> np.ndarray:
        """(n,): the smallest eps of the grid that fooled each image; 0 wrong before, inf never."""
        return self.sweep(name).arrays["min_eps"]

    def shares(self, *names: str) -> tuple[np.ndarray, ...] | None:
        """(n, len(eps)) of each attack: what it leaves of a random network's answers; None for any other."""
        cells = [self.sweep(name).arrays for name in names]
        return None if self.context.classifier.draws is None else tuple(c["right"] for c in cells)

    @property
    def smallest(self) -> np.ndarray:
        """(n,): of all attacks together."""
        each = np.stack([self.min_eps(name) for name in self.attacks])
        return np.asarray(each.min(0))

    @property
    def headline_eps(self) -> float | None:
        """The size of the headline number."""
        min_eps = self.smallest
        held = {e: float(withstands(min_eps, e).mean()) for e in self.config.eps if e > 0}
        grey = self.context.grey_scale.grey if self.config.norm == "linf" else None
        return reported_size(held, float((min_eps > 0).mean()), grey) if held else None

    @property
    def typical_eps(self) -> float:
        """The eps of the grid at which about half of the images fall: where a comparison shows most."""
        min_eps = self.min_eps(self.main)
        typical = float(np.median(min_eps[min_eps > 0])) if (min_eps > 0).any() else np.inf
        grid = [e for e in self.config.eps if e > 0]
        if not grid:
            return self.context.grey_scale.grey
        return next((e for e in grid if e >= typical * (1 - 1e-5)), grid[-1])

    @property
    def shown_name(self) -> str:
        """The name of ``shown_attack``, known before any sweep."""
        return self.main if main_attack([self.main, "pgd"]) == self.main else "pgd"

    @property
    def shown_attack(self) -> tuple[str, Attack, Ball]:
        """What detectors look for and explanations show: PGD at one grey level, or where about half of the images
        fall."""
        name, eps = self.shown_name, self.typical_eps
        if self.config.norm == "linf":
            grey = self.context.grey_scale.grey
            near = min(self.config.eps, key=lambda e: abs(e - grey))
            eps = max(eps, near if abs(near / grey - 1) < NEAR else eps)
        return name, self.attacks.get(name) or attack_named(name), self.context.ball(eps)

    @property
    def doubts(self) -> dict[str, str]:
        """attack -> why none of its numbers is believed."""
        return self.doubts_of(self.attacks)

    def doubts_of(self, names: Iterable[str]) -> dict[str, str]:
        """``doubts`` of these attacks."""
        return {name: NO_GRADIENT for name in names if self._no_gradient(name)}

    def _no_gradient(self, name: str) -> bool:
        return self.attacks[name].uses_gradient and float(self.sweep(name).arrays["no_gradient"].mean()) > 0.5

    # -- what it amounts to ------------------------------------------------------------------------------

    def outcome(self) -> ExperimentResult:
        outcome = self._outcome(self.attacks)
        self._noise_part(outcome)
        return outcome

    def swept(self, finished: Collection[str]) -> Mapping[str, Attack]:
        """The attacks whose sweeps are among these steps, by name."""
        return {name: attack for name, attack in self.attacks.items() if f"sweep {name}" in finished}

    def preliminary(self, finished: Collection[str]) -> ExperimentResult | None:
        """Clean performance and the sweeps so far, once there is one of more than a single step."""
        swept = self.swept(finished)
        if not {step.name for step in self.clean.steps()} <= set(finished):
            return None
        return self._outcome(swept) if any(attack.steps > 1 for attack in swept.values()) else None

    def _outcome(self, swept: Mapping[str, Attack]) -> ExperimentResult:
        outcome = self.clean.outcome()
        self._attack_part(outcome, swept)
        outcome.conditions["attacks"] = {name: described(attack) for name, attack in swept.items()}
        outcome.on_gradients = tuple(name for name, attack in swept.items() if attack.uses_gradient)
        identify(outcome, self.context.test, self.context.sample)
        return outcome

    def _attack_part(self, outcome: ExperimentResult, swept: Mapping[str, Attack]) -> None:
        context, doubts = self.context, self.doubts_of(swept)
        for name, attack in swept.items():
            cell = self.sweep(name)
            min_eps, no_gradient = cell.arrays["min_eps"], cell.arrays["no_gradient"]
            if attack.uses_gradient:
                outcome.checks.append(checks.usable_gradients(name, no_gradient))
            fallen = int((np.isfinite(min_eps) & (min_eps > 0)).sum())
            unconfirmed = cell.fact("unconfirmed", int)
            outcome.checks.append(checks.confirmed(name, unconfirmed, fallen + unconfirmed))
            attack_rows(
                outcome.rows,
                name,
                self.config.eps,
                min_eps,
                context.labels,
                cell.arrays["after"],
                no_gradient,
                context.classifier.classes,
                context.patients,
                doubts.get(name, ""),
                ordinal=context.config.ordinal,
                shares=cell.arrays.get("right"),
                by_class=len(self.attacks) == 1,  # of several, the worst case has it
            )
            cost = stats.mean(cell.arrays["gradients"])
            outcome.rows.add(Kind.ATTACK, "gradients_per_image", cost, attack=name, eps=max(self.config.eps))
            outcome.arrays[f"min_eps.{name}"] = min_eps.astype(np.float32)
            if "right" in cell.arrays:
                outcome.arrays[f"right.{name}"] = cell.arrays["right"]
        shown = self.main if self.main in swept else list(swept)[-1]
        main = self.sweep(shown)
        outcome.arrays |= {"labels": context.labels, "clean_prediction": main.arrays["before"]}
        outcome.examples = [{**e, "attack": shown} for e in main.fact("shown", list)[: robustness_cells.EXAMPLES]]
        for side in ("clean", "attacked"):
            outcome.pictures[f"examples.{side}"] = main.arrays[f"shown.{side}"][: robustness_cells.EXAMPLES]

    def _noise_part(self, outcome: ExperimentResult) -> None:
        context, eps, scale = self.context, self.config.eps, self.context.grey_scale
        decision = self.noise().arrays["decision"]
        right = guessing.right(self.sweep(self.main).arrays["before"], context.labels)
        classes, ordinal = context.classifier.classes, context.config.ordinal
        noise_rows(outcome.rows, eps, decision, context.labels, right, classes, context.patients, ordinal)
        wrong = np.stack([~guessing.right(decision[:, i], context.labels) for i in range(len(eps))], 1)
        outcome.checks += [checks.noise_is_weaker(name, eps, self.min_eps(name), wrong, scale) for name in self.attacks]
