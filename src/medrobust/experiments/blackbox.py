"""What an attacker reaches who sees only answers, as part of an audit: success against queries at one size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from medrobust import code_digest, seeds, stats
from medrobust.attacks import CGBA, Attack, DecisionBased, RayS, SimBA, Square, decided, queried
from medrobust.attacks.drawn import followed
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
from medrobust.threat import BALLS, Ball, Goal, Untargeted

PROBED = 24
"""Images that attacks without gradients are tried on."""
QUERIES = 80
COUNTS = (10, 40, QUERIES)
"""Queries an image at which the success is told."""
DECISIONS = (1000, 5000)
"""Decisions per image after which success and distance are reported, where a classifier answers with labels."""
CHANCE = 10
"""Random changes of the same size that the control may try."""
NOISE = "noise"


def attacks() -> dict[str, Attack]:
    """Two that are good with few queries; docs/results/black-box.md has the others beside them."""
    return {"square": Square(QUERIES), "simba-dct": SimBA(QUERIES, frequencies=28)}


def by_decisions(norm: str) -> dict[str, tuple[DecisionBased, type[Ball]]]:
    """The attack for the run's norm, and the one for L2, whose distances are compared most."""
    budget = DECISIONS[-1]
    l2: dict[str, tuple[DecisionBased, type[Ball]]] = {"cgba": (CGBA(budget), BALLS["l2"])}
    return l2 if norm == "l2" else {"rays": (RayS(budget), BALLS["linf"]), **l2}


def approached(
    attack: DecisionBased, classifier: Classifier, part: Dataset, norm: type[Ball], seed: int, advance: Advance
) -> Result:
    """The smallest perturbation of each image after each of DECISIONS (0: wrong before, inf: no start), judged."""
    images, labels = part.tensors()
    goal = Untargeted(labels)
    done = decided(attack, classifier, images, goal, norm, DECISIONS, seed=seed, ids=part.ids, advance=advance)
    outcome = judge(classifier, images, done.images, goal, norm(1.0 if norm.name == "linf" else torch.inf))
    sizes = torch.where((outcome.reached | outcome.reached_before)[:, None], done.sizes, torch.inf)
    return {}, {"sizes": sizes.numpy(), "inconclusive": done.inconclusive.numpy()}


def probed(attack: Attack, classifier: Classifier, part: Dataset, ball: Ball, seed: int, advance: Advance) -> Result:
    """At which query each image fell (0: wrong before, inf: never), judged; of a random network on other draws."""
    images, labels = part.tensors()
    goal = Untargeted(labels)
    queries = queried(attack, followed(classifier), images, goal, ball, seed=seed, ids=part.ids, advance=advance)
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
        probe, names = (self._approach, self.decisive) if self.labels_only else (self._probe, attacks())
        steps = [Step(f"black box {name}", partial(probe, name), needs) for name in names]
        beside = [("black box chance", self._chance)]
        if not self.context.classifier.black_box:
            beside.insert(0, ("black box beside", self._beside))
        return [*steps, *(Step(name, work, needs) for name, work in beside)]

    @property
    def labels_only(self) -> bool:
        """Whether attacks can use decisions alone."""
        return self.context.classifier.labels_only

    @property
    def decisive(self) -> dict[str, tuple[DecisionBased, type[Ball]]]:
        """Attacks of a classifier that answers with labels."""
        return by_decisions(self.context.config.norm)

    def _approach(self, name: str) -> Cell:
        attack, norm = self.decisive[name]
        started, classifier = self.context.started(attack), self.context.classifier
        assert isinstance(started, DecisionBased)
        return self.context.sharded(
            self.subset,
            f"From decisions alone: {attack.title}, {attack.queries} queries",
            {"kind": "approach", "attack": code_digest.described(attack), "size": norm.name, "counts": DECISIONS},
            lambda shard, advance: approached(started, classifier, shard, norm, self.seed, advance),
        )

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
        """The attack that sees gradients, on the same images; None for a black box."""
        ball, main = self._ball, self.robustness.main
        if ball is None or self.context.classifier.black_box:
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
        outcome, ball = ExperimentResult(self.context.rows()), self._ball
        chance = self._chance()
        if ball is None or chance is None:
            return outcome
        eps, owners = float(ball.eps), groups(self.subset)
        queries_used = chance.arrays["queries_used"]
        if self.labels_only:
            self._decision_part(outcome.rows, eps, owners)
        else:
            self._score_part(outcome, eps, owners, queries_used > 0)
        note = "random changes, one a query"
        _success(outcome.rows, Kind.CONTROL, NOISE, eps, queries_used, owners, (CHANCE,), OK, note)
        if (beside := self._beside()) is not None:
            right = queries_used > 0
            fallen = stats.proportion(beside.arrays["reached"][right], None if owners is None else owners[right])
            outcome.rows.add(Kind.ATTACK, "success_probed", fallen, attack=self.robustness.main, eps=eps)
        return outcome

    def _decision_part(self, rows: Rows, eps: float, owners: np.ndarray | None) -> None:
        for name, (_, norm) in self.decisive.items():
            cell = self._approach(name)
            lost, sizes = int(cell.arrays["inconclusive"].sum()), cell.arrays["sizes"]
            note = f"for {lost} of {len(sizes)} images no start was found" if lost else ""
            status = INCONCLUSIVE if lost >= max(1, checks.TOLERATED * len(sizes)) else OK
            right = sizes[:, 0] > 0
            whose = None if owners is None else owners[right]
            for k, count in enumerate(DECISIONS):
                more: dict[str, Any] = {"attack": name, "status": status, "note": note, "queries": count}
                middle = stats.median(sizes[right, k], whose)
                if not np.isfinite(middle.value):
                    middle = stats.NOTHING._replace(n=middle.n)
                rows.add(Kind.BLACK_BOX, f"median_{norm.name}", middle, **more)
                if norm.name == self.context.config.norm:
                    share = stats.proportion(sizes[right, k] <= np.float32(eps), whose)
                    rows.add(Kind.BLACK_BOX, "success_at", share, eps=eps, **more)

    def _score_part(self, outcome: ExperimentResult, eps: float, owners: np.ndarray | None, judged: np.ndarray) -> None:
        main, beside = self.robustness.main, self._beside()
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
            if beside is not None:  # images that were wrong before fell to nothing
                reached, white = np.isfinite(queries_used)[judged], beside.arrays["reached"][judged]
                outcome.checks.append(
                    checks.black_box_is_weaker(
                        main, eps, reached, white, QUERIES, attack.title, scale=self.context.grey_scale
                    )
                )


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
