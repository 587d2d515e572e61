"""What an attack does to each finding, for a classifier of several findings (Ghamizi et al. 2022, arXiv:2212.08130).

A finding is hidden in images that have it and where it was reported, and invented where neither is so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from medrobust import code_digest
from medrobust.attacks import FMN, Attack
from medrobust.data import Dataset
from medrobust.errors import InputError
from medrobust.experiments import checks, finding_cells, risk
from medrobust.experiments.blackbox import PROBED
from medrobust.experiments.conditions import described
from medrobust.experiments.config import attack_named
from medrobust.experiments.context import Context, Experiment, ExperimentResult, Step
from medrobust.experiments.finding_cells import BESIDE, SET_GOALS, Reached, Threat
from medrobust.experiments.finding_rows import NAME, goal_rows, noise_goal_rows
from medrobust.experiments.robustness import RobustnessExperiment
from medrobust.experiments.system import System, groups
from medrobust.images import UNKNOWN
from medrobust.results import BY_FINDING, INCONCLUSIVE, OK, Check, Kind, group
from medrobust.store import Cell
from medrobust.threat import Goal, GoalKind, parse_goal

STEPS = 30
"""Of the attack that looks for the smallest change: it needs no grid, and so every goal costs the same."""
MOST_SETS = 512
"""Sets of findings that are compared: the most frequent ones."""


@dataclass(frozen=True)
class Occurring:
    """Sets of findings that occur, int64 (m, k), the most frequent first. origin: whose labels they are."""

    sets: np.ndarray
    origin: str


def occurring(system: System) -> Occurring | None:
    """The sets in the training labels, or in those of the images at hand; None where no image has all of them known."""
    unseen = set(system.test.ids)
    train = [i for i, name in enumerate(system.data.ids) if name not in unseen and system.data.split_of[i] == "train"]
    part, origin = (system.data.select(train), "training labels") if train else (system.test, "labels of the test data")
    known = part.labels[(part.labels != UNKNOWN).all(1)]
    if not len(known):
        return None
    sets, counts = np.unique(known, axis=0, return_counts=True)
    return Occurring(sets[np.argsort(-counts, kind="stable")][:MOST_SETS], origin)


def goal_on(system: System, text: str) -> tuple[Dataset, Goal]:
    """The attacked images for which a goal in words means something, and the goal on them.

    InputError for a classifier of one class an image, another goal, and where no image is concerned.
    """
    head, sample = system.classifier.head, system.sample
    if not head.multilabel:
        raise InputError(f"goal {text!r} is for several findings; this classifier gives one class an image")
    goal = parse_goal(text, system.classifier.classes)
    images, labels = sample.tensors()
    logits = system.classifier.logits(images)
    index = goal.concerns(head.decide(logits), labels).nonzero()[:, 0]
    if not len(index):
        raise InputError(f"goal {text!r}: none of the {len(sample)} images is read so that it could be reached")
    sets = occurring(system)
    known = None if sets is None else torch.from_numpy(sets.sets)
    return sample.select(index), goal.on(logits[index], head, labels[index], known)


class FindingsExperiment(Experiment):
    """Every finding hidden and invented, alone and not; and changes of the whole set."""

    name = "findings"

    def __init__(self, context: Context, robustness: RobustnessExperiment) -> None:
        self.context, self.config, self.robustness = context, context.config, robustness
        self.findings = context.classifier.classes
        self.weights = None if self.config.risk is None else risk.read(self.config.risk, self.findings)
        self.attack: Attack = FMN(steps=STEPS)
        self.beside, self.most, self.lacking = BESIDE, self.config.limit, "there was no usable gradient"
        if context.classifier.black_box:
            self.attack, self.lacking = (
                attack_named(self.config.attacks[0]),
                "no start was found, or no answer differed",
            )
            self.beside, self.most = {}, PROBED if self.most is None else min(PROBED, self.most)

    def steps(self) -> Sequence[Step]:
        each = [Step(f"finding {name}", partial(self.cell, k), ("clean",)) for k, name in enumerate(self.findings)]
        return [Step("findings as a set", lambda: self.sets_cell), *each]

    @cached_property
    def threat(self) -> Threat:
        started = self.context.started(self.attack)
        return Threat(started, self.context.ball, self.config.eps, self.config.seed, self.beside)

    # -- images --------------------------------------------------------------------------------------------

    @cached_property
    def occurring(self) -> Occurring | None:
        return occurring(self.context.system)

    @property
    def _sets(self) -> np.ndarray | None:
        return None if self.occurring is None else self.occurring.sets

    @cached_property
    def sample(self) -> Dataset:
        """Images of which the whole set is to change."""
        return self.context.sample.sample(self.most, self.config.seed)

    def part(self, finding: int) -> Dataset | None:
        """Test images in which a finding is known and read correctly, so many with it and without it; None: no such."""
        test, limit = self.context.test, self.most
        decision = self.robustness.clean.cell.arrays["decision"][:, finding]
        label = test.labels[:, finding]
        ids: set[str] = set()
        for value in (0, 1):
            index = np.flatnonzero((label == value) & (decision == value))
            if index.size:
                ids |= set(test.select(index).sample(None if limit is None else -(-limit // 2), self.config.seed).ids)
        return test.select([i for i, name in enumerate(test.ids) if name in ids]).by_id().by_id() if ids else None

    # -- cells ---------------------------------------------------------------------------------------------

    @cached_property
    def _key(self) -> dict[str, object]:
        return {"attack": code_digest.described(self.attack), "eps": self.config.eps}

    def cell(self, finding: int) -> Cell | None:
        """One finding turned; None where no image is read correctly in it."""
        part = self.part(finding)
        if part is None:
            return None
        classifier, threat = self.context.attacked, self.threat
        return self.context.sharded(
            part,
            f"Hiding and inventing {self.findings[finding]}",
            {"kind": "finding", "finding": finding, **self._key},
            lambda shard, advance: finding_cells.of_finding(classifier, shard, finding, threat, advance),
        )

    @cached_property
    def sets_cell(self) -> Cell:
        """Goals for the whole set, on the attacked images."""
        classifier, threat = self.context.attacked, self.threat
        sets = None if self.occurring is None or len(self.occurring.sets) < 2 else self.occurring.sets
        return self.context.sharded(
            self.sample,
            "Changing the set of findings",
            {"kind": "finding sets", "sets": None if sets is None else sets.tolist(), **self._key},
            lambda shard, advance: finding_cells.of_sets(classifier, shard, sets, threat, advance),
        )

    # -- what it amounts to --------------------------------------------------------------------------------

    def outcome(self) -> ExperimentResult:
        outcome = ExperimentResult(self.context.rows(), on_gradients=(self.name,))
        cells = {k: self.cell(k) for k in range(len(self.findings))}
        for k, name in enumerate(self.findings):
            self._finding_part(outcome, k, name, cells[k])
        self._sets_part(outcome, cells)
        outcome.arrays[BY_FINDING] = self._by_finding(cells)
        self._risk_part(outcome)
        outcome.checks.append(self._confirmed(cells))
        sets = self.occurring
        outcome.conditions["findings"] = {
            **described(self.attack),
            "sets": None if sets is None else len(sets.sets),
            "sets_of": "" if sets is None else sets.origin,
            "risk": self._stated_risk,
        }
        noise_goal_rows(
            outcome.rows,
            self.config.eps,
            self.robustness.sweep(self.robustness.main).arrays["before"],
            self.robustness.noise().arrays["decision"],
            self.context.labels,
            self.findings,
            self.context.patients,
        )
        return outcome

    def _by_finding(self, cells: dict[int, Cell | None]) -> np.ndarray:
        """float32 (n test, k): the smallest eps that turns a finding; inf never, NaN where that was not attacked."""
        test = self.context.test
        place = {name: i for i, name in enumerate(test.ids)}
        smallest = np.full((len(test), len(self.findings)), np.nan, dtype=np.float32)
        for k, cell in cells.items():
            if cell is not None and (part := self.part(k)) is not None:
                smallest[[place[name] for name in part.ids], k] = cell.arrays["one.min_eps"]
        return smallest

    def _confirmed(self, cells: dict[int, Cell | None]) -> Check:
        """Whether the judge confirms every example of every goal."""
        every = [cell.arrays for cell in (*cells.values(), self.sets_cell) if cell is not None]
        unconfirmed = sum(int(v.sum()) for arrays in every for k, v in arrays.items() if k.endswith(".unconfirmed"))
        reached = sum(int(np.isfinite(v).sum()) for arrays in every for k, v in arrays.items() if k.endswith("min_eps"))
        return checks.confirmed(NAME, unconfirmed, reached + unconfirmed)

    def _finding_part(self, outcome: ExperimentResult, k: int, name: str, cell: Cell | None) -> None:
        part = self.part(k)
        for kind, value in ((GoalKind.HIDE, 1), (GoalKind.INVENT, 0)):
            mask = None if part is None else part.labels[:, k] == value
            if part is None or cell is None or mask is None or not mask.any():
                without = "has it and was read so" if value else "lacks it and was read so"
                outcome.left_out.append((f"{kind.value} {name}", f"no test image {without}"))
                continue
            chosen, before = part.select(np.flatnonzero(mask)), cell.arrays["before"][mask]
            for alone in (False, True):
                result = _reached(cell, "alone" if alone else "one", mask)
                goal_rows(
                    outcome.rows,
                    self.config.eps,
                    result,
                    before,
                    chosen.labels,
                    self._sets,
                    groups(chosen),
                    self.lacking,
                    goal=kind.value,
                    class_name=name,
                    alone=alone or None,
                )

    def _risk_part(self, outcome: ExperimentResult) -> None:
        """One number at each eps: the share of what is at stake that is lost, by the user's weights."""
        if self.weights is None:
            return
        success = [r for r in outcome.rows.rows if r.metric == "success" and r.get("class_name") is not None]
        for alone in (None, True):
            for eps in self.config.eps:
                at = [r for r in success if r.eps == eps and r.get("alone") is alone]
                rates = {(str(r.get("class_name")), GoalKind(str(r.get("goal")))): r.estimate for r in at}
                status = OK if all(r.status == OK for r in at) else INCONCLUSIVE
                share = risk.weighted(rates, self.weights)
                outcome.rows.add(Kind.FINDING, "risk", share, attack=NAME, eps=eps, status=status, alone=alone)

    @property
    def _stated_risk(self) -> dict[str, list[float]] | None:
        """Finding -> weight when missed, weight when invented."""
        if self.weights is None:
            return None
        return {name: [self.weights[name, kind] for kind in (GoalKind.HIDE, GoalKind.INVENT)] for name in self.findings}

    def _sets_part(self, outcome: ExperimentResult, cells: dict[int, Cell | None]) -> None:
        sample, cell = self.sample, self.sets_cell
        for kind in SET_GOALS:
            if f"{kind.value}.concerned" not in cell.arrays:
                why = "no image has a known label for every finding, or all have the same set"
                outcome.left_out.append(("a set of findings that occurs", why))
                continue
            concerned = cell.arrays[f"{kind.value}.concerned"]
            if not concerned.any():
                outcome.left_out.append((kind.value, "no finding was reported in any of the attacked images"))
                continue
            result, chosen = _reached(cell, kind.value, concerned), sample.select(np.flatnonzero(concerned))
            if kind is GoalKind.ANY:
                self._improve(result, chosen, cells)
                outcome.arrays["min_eps.findings"] = result.min_eps
            goal_rows(
                outcome.rows,
                self.config.eps,
                result,
                cell.arrays["before"][concerned],
                chosen.labels,
                self._sets,
                groups(chosen),
                self.lacking,
                goal=kind.value,
            )

    def _improve(self, result: Reached, chosen: Dataset, cells: dict[int, Cell | None]) -> None:
        """A finding that was turned is a change of the set."""
        place = {name: i for i, name in enumerate(chosen.ids)}
        for k, cell in cells.items():
            part = self.part(k)
            if part is None or cell is None:
                continue
            rows = [(i, place[name]) for i, name in enumerate(part.ids) if name in place]
            if not rows:
                continue
            there, here = np.array(rows).T
            other = Reached(
                np.full_like(result.min_eps, np.inf), result.after.copy(), result.unconfirmed, result.no_gradient
            )
            other.min_eps[here] = cell.arrays["one.min_eps"][there]
            other.after[here] = cell.arrays["one.after"][there]
            result.improve(other, np.isfinite(other.min_eps))


def _reached(cell: Cell, name: str, mask: np.ndarray) -> Reached:
    arrays = group(cell.arrays, name)
    fields = ("min_eps", "after", "unconfirmed", "no_gradient")
    return Reached(*(arrays[field][mask].copy() for field in fields))
