"""What an attacker reaches who sees only answers, as part of an audit: success against queries at one size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from medrobust import code_digest, seeds, stats
from medrobust.attacks import Attack, SimBA, Square, queried
from medrobust.classifier import Classifier
from medrobust.data import Dataset
from medrobust.experiments import checks
from medrobust.experiments.context import Advance, Context, Experiment, ExperimentResult, Step
from medrobust.experiments.robustness import RobustnessExperiment
from medrobust.experiments.system import groups
from medrobust.images import Images
from medrobust.judging import judge
from medrobust.results import INCONCLUSIVE, OK, Kind, Rows
from medrobust.store import Cell, Result
from medrobust.threat import Ball, Goal, Untargeted

PROBED = 24
"""Images that attacks without gradients are tried on."""
QUERIES = 80
COUNTS = (10, 40, QUERIES)
"""Queries an image at which the success is told."""
CHANCE = 10
"""Random changes of the same size that the control may try."""
NOISE = "noise"


def attacks() -> dict[str, Attack]:
    """Two that are good with few queries; docs/results/black-box.md has the others beside them."""
    return {"square": Square(QUERIES), "simba-dct": SimBA(QUERIES, frequencies=28)}


def probed(attack: Attack, classifier: Classifier, part: Dataset, ball: Ball, seed: int, advance: Advance) -> Result:
    """At which query each image fell (0: wrong before, inf: never), judged."""
    images, labels = part.tensors()
    goal = Untargeted(labels)
    queries = queried(attack, classifier, images, goal, ball, seed=seed, ids=part.ids, advance=advance)
    outcome = judge(classifier, images, queries.images, goal, ball)
    queries_used = torch.where(outcome.reached, queries.queries_used, torch.inf)
    return {}, {"queries_used": queries_used.numpy(), "no_gradient": queries.inconclusive.numpy()}


def by_chance(
    classifier: Classifier, part: Dataset, ball: Ball, seed: int, advance: Advance, tries: int = CHANCE
) -> Result:
    """The control: random changes of exactly the ball's size, one a query."""
    images, labels = part.tensors()
    goal: Goal = Untargeted(labels)
    goal = goal.prepare(classifier.head, len(classifier.classes), len(images), images.device)

    def wrong(changed: Images) -> torch.Tensor:
        return goal.reached(classifier.head, classifier.logits(changed))

    queries_used = torch.where(wrong(images), 0.0, torch.inf)
    for k in range(1, tries + 1):
        ids = [f"{i}/{k}" for i in part.ids]
        if ball.name == "linf":
            change = seeds.signs(seed, "chance", ids, images.shape[1:])
        else:
            change = ball.at_edge(seeds.normal(seed, "chance", ids, images.shape[1:]))
        changed = ball.move(images, images + ball.eps * change)
        queries_used = torch.where(wrong(changed), queries_used.minimum(torch.tensor(float(k))), queries_used)
    advance(len(images))
    return {}, {"queries_used": queries_used.numpy()}


class BlackBoxExperiment(Experiment):
    """Attacks without gradients on a few images, beside one that sees gradients and beside random changes."""

    name = "blackbox"

    def __init__(self, context: Context, robustness: RobustnessExperiment) -> None:
        self.context, self.robustness, self.seed = context, robustness, context.config.seed
        self.subset = context.sample.sample(PROBED, self.seed)

    def steps(self) -> Sequence[Step]:
        needs = tuple(f"sweep {name}" for name in self.robustness.attacks)
        steps = [Step(f"black box {name}", partial(self._probe, name), needs) for name in attacks()]
        beside = [("black box beside", self._beside), ("black box chance", self._chance)]
        return [*steps, *(Step(name, work, needs) for name, work in beside)]

    @property
    def _ball(self) -> Ball | None:
        eps = self.robustness.headline_eps
        return None if eps is None else self.context.ball(eps)

    def _probe(self, name: str) -> Cell | None:
        ball, attack, classifier = self._ball, attacks()[name], self.context.classifier
        if ball is None:
            return None
        return self.context.sharded(
            self.subset,
            f"Without gradients: {attack.title}, {QUERIES} queries",
            {"kind": "probe", "attack": code_digest.described(attack), "eps": float(ball.eps)},
            lambda shard, advance: probed(attack, classifier, shard, ball, self.seed, advance),
        )

    def _beside(self) -> Cell | None:
        """The attack that sees gradients, on the same images."""
        ball, main = self._ball, self.robustness.main
        if ball is None:
            return None
        return self.robustness.fixed(
            "beside attacks without gradients", self.robustness.attacks[main], self.subset, ball
        )

    def _chance(self) -> Cell | None:
        ball, classifier = self._ball, self.context.classifier
        if ball is None:
            return None
        return self.context.sharded(
            self.subset,
            "Random noise, as often",
            {"kind": "probe", "attack": "chance", "tries": CHANCE, "eps": float(ball.eps)},
            lambda shard, advance: by_chance(classifier, shard, ball, self.seed, advance),
        )

    def outcome(self) -> ExperimentResult:
        outcome, ball, main = ExperimentResult(self.context.rows()), self._ball, self.robustness.main
        chance, beside = self._chance(), self._beside()
        if ball is None or chance is None or beside is None:
            return outcome
        eps, owners, white = float(ball.eps), groups(self.subset), beside.arrays["reached"]
        for name, attack in attacks().items():
            cell = self._probe(name)
            assert cell is not None
            queries_used, lost = cell.arrays["queries_used"], int(cell.arrays["no_gradient"].sum())
            note = f"{QUERIES} queries" + (
                f"; on {lost} of {queries_used.size} images no answer ever differed" if lost else ""
            )
            status = INCONCLUSIVE if lost >= max(1, checks.TOLERATED * queries_used.size) else OK
            held = stats.proportion(~np.isfinite(queries_used), owners)
            outcome.rows.add(Kind.BLACK_BOX, "accuracy", held, attack=name, eps=eps, status=status, note=note)
            _success(outcome.rows, Kind.BLACK_BOX, name, eps, queries_used, owners, COUNTS, status, note)
            judged = queries_used > 0  # images that were wrong before fell to nothing
            reached = np.isfinite(queries_used)[judged]
            outcome.checks.append(checks.black_box_is_weaker(main, eps, reached, white[judged], QUERIES, attack.title))
        queries_used = chance.arrays["queries_used"]
        note = "random changes, one a query"
        _success(outcome.rows, Kind.CONTROL, NOISE, eps, queries_used, owners, (CHANCE,), OK, note)
        right = queries_used > 0
        patients = None if owners is None else owners[right]
        fallen = stats.proportion(white[right], patients)
        outcome.rows.add(Kind.ATTACK, "success_probed", fallen, attack=main, eps=eps)
        return outcome


def _success(
    rows: Rows,
    kind: Kind,
    name: str,
    eps: float,
    queries_used: np.ndarray,
    owners: np.ndarray | None,
    counts: tuple[int, ...],
    status: str,
    note: str,
) -> None:
    right = queries_used > 0
    who = None if owners is None else owners[right]
    for count in counts:
        share = stats.proportion(queries_used[right] <= count, who)
        rows.add(kind, "success_at", share, attack=name, eps=eps, status=status, note=note, queries=count)
