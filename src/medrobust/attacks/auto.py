"""A parameter-free ensemble, worst case for each image (after AutoAttack, Croce & Hein 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from medrobust.attacks.active_batch import goal_on
from medrobust.attacks.apgd import APGD
from medrobust.attacks.attack import Attack, Batch, Composed
from medrobust.attacks.attacked import Attacked
from medrobust.attacks.cgba import CGBA
from medrobust.attacks.engine import run
from medrobust.attacks.minimal import CWL2, FMN, boundary
from medrobust.attacks.rays import RayS
from medrobust.attacks.square import Square
from medrobust.classifier import Classifier
from medrobust.errors import InputError
from medrobust.images import Images, check_images
from medrobust.seeds import Id
from medrobust.threat import Ball, Goal, Targeted, Untargeted, margin
from medrobust.threat.balls import TOLERANCE

MEMBERS: tuple[str, ...] = ("apgd", "apgd-margin", "fmn", "square")
BY_DECISIONS = {"linf": "rays", "l2": "cgba"}
"""The decision-based attack for each norm: of a black box the last member, of one that answers with labels the only."""
ALL = (*MEMBERS, *BY_DECISIONS.values())
"""In the order of ``Attacked.by``."""
LOOK = 30
"""Steps of the FMN that tells which images a longer search may break inside one ball: its lengths were at most 6 %
above those of 100 steps (six networks, Linf and L2), and most images that hold are farther away."""
NEAR = 1.15
"""Where that needs at most so many times the ball, a longer search for the smallest perturbation follows."""
NEARER = 1.02
"""Where that needs at most so many times the ball, runs inside it follow, from other random points."""
RESTARTS = 8
CANDIDATES = 10
"""Of the other classes, those with the largest logits among which the nearest boundary is looked for."""


class Auto(Composed):
    """APGD on the cross-entropy, APGD on the margin, FMN and Square; each on the images that still hold.

    It has no hyper-parameter to tune, so that numbers of different classifiers are comparable, and it works from one
    logit and two classes up: AutoAttack's third and fourth logit (DLR loss) do not exist in most of medicine. FMN
    stands for FAB; inside one ball it is short, and where it ends just outside, CW-L2 (Linf: FMN with three times
    ``steps``) looks again, and APGD from other random points, as part of it; of three classes and more it also looks
    towards the class whose linearised boundary is nearest, which the best logit does not show. With two classes the
    margin rises with the cross-entropy, so that APGD makes the same steps on both: the second run is left out. Square
    uses no gradient: what only Square breaks shows that gradients were misleading.
    An image on which every gradient was zero and that Square did not break either is inconclusive, never robust.

    Where gradients are masked and no stand-in for them agrees with finite differences (``attacks.substitute``), a
    decision-based attack comes last.

    Of a black box, Square and a decision-based attack are the members; where it answers with labels, the latter alone.

    ``Attacked.by`` tells which of ``ALL`` broke an image; ``Attacked.images`` at what size.
    steps: of each gradient attack; queries: of each other. They are the definition: leave them for numbers that
    are to be compared.
    """

    title = "Auto"
    source = "after Croce & Hein 2020, arXiv:2003.01690"
    random_start = True
    members = MEMBERS

    def __init__(self, steps: int = 100, queries: int = 1000) -> None:
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        self.steps = steps
        self.attacks: dict[str, Attack] = {
            "apgd": APGD(steps),
            "apgd-margin": APGD(steps, loss=margin),
            "fmn": FMN(steps),
            "square": Square(queries),
            "cgba": CGBA(queries),
            "rays": RayS(queries),
        }
        look, inside = FMN(min(LOOK, steps)), self.attacks["apgd-margin"]
        self._closer = {
            "l2": Closer(look, CWL2(inner=max(2, steps)), inside),
            "linf": Closer(look, FMN(3 * steps), inside),
        }

    @property
    def settings(self) -> dict[str, object]:
        return {"steps": self.steps, "queries": self.attacks["square"].steps}

    def run(self, classifier: Classifier, images: Images, goal: Goal, ball: Ball, **options: Any) -> Attacked:
        """See ``attacks.run``. ``full``: of what the members reach with all their steps, the largest margin."""
        images = check_images(images)
        n = len(images)
        goal = goal.prepare(classifier.head, len(classifier.classes), n, images.device)
        ids = list(range(n)) if options.get("ids") is None else list(options["ids"])
        task = _Task(classifier, images, goal, ball, ids, options)
        return self._strongest(task) if options.get("full") else self._worst(task)

    def _worst(self, task: _Task) -> Attacked:
        advance: Callable[[int], None] = task.options.get("advance") or (lambda _: None)
        before = task.options.get("after")
        total = task.nothing() if before is None else replace(before, by=torch.full_like(before.level, -1))
        finished = 0
        # in a sweep the exact distances come first, and the others look below them
        order = task.members
        if len(task.levels) > 1:
            order = tuple(sorted(order, key=lambda name: not self.attacks[name].minimal))
        no_gradient = torch.ones(len(task.images), dtype=torch.bool)
        for name in order:
            left = (~total.clean & (total.level > 0)).nonzero()[:, 0]
            if not left.numel():
                break
            attack = self.attacks[name]
            if attack.minimal:
                attacked = task.smallest(
                    attack, left, self._closer.get(task.ball.name) if attack.uses_gradient else None
                )
            else:
                attacked = task.search(attack, left, total.take(left))
            if attack.uses_gradient or task.classifier.black_box:
                no_gradient[left] &= attacked.no_gradient
            total = _merged(total, left, attacked, ALL.index(name))
            done = int((total.clean | (total.level == 0)).sum())
            advance(done - finished)
            finished = done
        advance(len(task.images) - finished)
        return replace(total, no_gradient=no_gradient & ~total.reached)

    def _strongest(self, task: _Task) -> Attacked:
        everything = torch.arange(len(task.images))
        best: Attacked | None = None
        strength = torch.full((len(task.images),), -torch.inf)
        for name in task.members:
            attack = self.attacks[name]
            if attack.minimal and not task.classifier.labels_only:
                continue
            attacked = task.search(attack, everything, None)
            reach = task.goal.margin(task.classifier.head, task.classifier.logits(attacked.images)).cpu()
            attacked = replace(attacked, by=torch.where(attacked.reached & ~attacked.clean, ALL.index(name), -1))
            if best is None:
                best, strength = attacked, reach
                continue
            better = (reach > strength).nonzero()[:, 0]
            cost = {k: getattr(best, k) + getattr(attacked, k) for k in ("gradients", "forwards", "queries")}
            best = replace(
                best.put(better, attacked.take(better)), no_gradient=best.no_gradient & attacked.no_gradient, **cost
            )
            strength = torch.maximum(strength, reach)
        assert best is not None
        return best


class Closer(NamedTuple):
    """How the smallest perturbation is looked for where only one ball counts: a short look, a longer one where that
    ends just outside, and then runs inside the ball."""

    look: Attack
    smallest: Attack
    inside: Attack


class _Task:
    """The arguments of the ensemble, and how a member is run on some of the images."""

    def __init__(
        self,
        classifier: Classifier,
        images: Images,
        goal: Goal,
        ball: Ball,
        ids: Sequence[Id],
        options: Mapping[str, Any],
    ) -> None:
        self.classifier, self.images, self.goal, self.ball, self.ids = classifier, images, goal, ball, ids
        self.options = options
        one_boundary = len(classifier.classes) == 2 and classifier.head.name != "multilabel"
        self.several = (
            classifier.head.name == "softmax" and len(classifier.classes) > 2 and isinstance(goal, Untargeted)
        )
        """Whether to look towards another class than that with the best logit."""
        self.members = tuple(m for m in MEMBERS if not (one_boundary and m == "apgd-margin"))
        if classifier.substitute is not None and not classifier.substitute.agrees:
            self.members = (*self.members, BY_DECISIONS[ball.name])
        if classifier.black_box:
            self.members = ("square", BY_DECISIONS[ball.name])[classifier.labels_only :]
        grid = options.get("grid")
        self.levels = [float(ball.eps)] if grid is None else [float(type(ball)(float(e)).eps) for e in grid]

    def nothing(self) -> Attacked:
        """Before any member: every image as it is, and whether it was wrong before."""
        logits = self.classifier.logits(self.images)
        clean = (self.goal.reached(self.classifier.head, logits) & torch.isfinite(logits).all(1)).cpu()
        zero = torch.zeros(len(self.images), dtype=torch.long)
        level = torch.where(clean, 0, len(self.levels))
        return Attacked(self.images.clone(), clean, level, zero, zero + 1, zero, clean, ~clean, zero - 1)

    def search(self, attack: Attack, index: Tensor, after: Attacked | None) -> Attacked:
        """The member inside the ball, or along the grid below what the members before have found."""
        given = {k: v for k, v in self.options.items() if k not in ("ids", "near", "after", "advance")}
        near = self.options.get("near")
        if near is None and len(self.levels) > 1:  # from the largest: the way back costs forward passes only
            near = torch.full((len(self.images),), len(self.levels) - 1)
        return run(
            attack,
            self.classifier,
            self.images[index],
            self.goal.take(index),
            self.ball,
            ids=[self.ids[i] for i in index.tolist()],
            near=None if near is None else near[index],
            after=None if after is None else replace(after, by=None),
            **given,
        )

    def smallest(self, attack: Attack, index: Tensor, closer: Closer | None) -> Attacked:
        """A member that looks for the smallest perturbation: what it finds counts from its own size upwards.

        closer: what stands for it inside one ball.
        """
        if closer is None:
            return self._outside(attack, index, self.goal.take(index))[0]
        one, eps = len(self.levels) == 1, self.levels[-1]
        found, size = self._outside(closer.look if one else attack, index, self.goal.take(index))
        ways: list[tuple[Goal, Tensor]] = [(self.goal.take(index), torch.ones(len(index), dtype=torch.bool))]
        if self.several:
            nearest = Targeted(self._nearest(index))
            left = (~found.reached if one else torch.ones_like(found.reached)).nonzero()[:, 0]
            again, other = self._outside(closer.look, index[left], nearest.take(left))
            found, nearer = _added(found, left, again), torch.zeros_like(found.reached)
            nearer[left] = other < size[left]
            size[left] = torch.minimum(size[left], other)
            ways = [(self.goal.take(index), ~nearer), (nearest, nearer)]
        for goal, of in ways if one else ():
            near = (of & ~found.reached & (size <= NEAR * eps)).nonzero()[:, 0]
            if near.numel():
                again, smaller = self._outside(closer.smallest, index[near], goal.take(near))
                found, size[near] = _added(found, near, again), torch.minimum(size[near], smaller)
            near = (of & ~found.reached & (size <= NEARER * eps)).nonzero()[:, 0]
            if near.numel():
                found = _added(found, near, self._restarted(closer.inside, index[near], goal.take(near)))
        return found

    def _nearest(self, index: Tensor) -> Tensor:
        """int64 (n,): the class whose linearised boundary is nearest to each image."""
        found, device = [], self.classifier.device
        for part in index.split(self.classifier.batch_size(self.images.shape)):
            at = torch.zeros(len(part), dtype=torch.long, device=device)
            names = [self.ids[i] for i in part.tolist()]
            origin, goal = self.images[part].to(device), goal_on(self.goal.take(part), device)
            with self.classifier.borrowed():
                _, behind = boundary(
                    self.classifier, origin, Batch(origin, self.ball, goal, at, at, names, 0), CANDIDATES
                )
            found.append(behind.cpu())
        return torch.cat(found)

    def _restarted(self, attack: Attack, index: Tensor, goal: Goal) -> Attacked:
        """Runs inside the ball from RESTARTS random points, in one batch; of each image the first that reaches it."""
        each = index.repeat_interleave(RESTARTS)
        given = {k: v for k, v in self.options.items() if k in ("seed", "fast", "bfloat16")}
        names = [f"{self.ids[i]}, restart {r}" for i in index.tolist() for r in range(RESTARTS)]
        goals = goal.take(torch.arange(len(index)).repeat_interleave(RESTARTS))
        runs = run(attack, self.classifier, self.images[each], goals, self.ball, ids=names, **given)
        first = runs.reached.view(-1, RESTARTS).long().argmax(1)
        best = runs.take(torch.arange(len(index)) * RESTARTS + first)
        cost = {k: getattr(runs, k).view(-1, RESTARTS).sum(1) for k in ("gradients", "forwards", "queries")}
        return replace(best, **cost)

    def _outside(self, attack: Attack, index: Tensor, goal: Goal) -> tuple[Attacked, Tensor]:
        """What it finds inside the ball; and the size of whatever it finds, infinite where that is nothing."""
        given = {k: v for k, v in self.options.items() if k in ("seed", "fast")}
        origin = self.images[index]
        attacked = run(
            attack,
            self.classifier,
            origin,
            goal,
            type(self.ball)(math.inf),
            ids=[self.ids[i] for i in index.tolist()],
            **given,
        )
        size = torch.where(attacked.reached, self.ball.size(attacked.images - origin).cpu(), torch.inf)
        level = torch.searchsorted(torch.tensor(self.levels), size - TOLERANCE)
        inside = level < len(self.levels)
        kept = torch.where(inside.view(-1, 1, 1, 1).to(origin.device), attacked.images, origin)
        return replace(attacked, images=kept, reached=inside, level=torch.where(inside, level, len(self.levels))), size


def _added(found: Attacked, at: Tensor, again: Attacked) -> Attacked:
    """``found`` with what another run has made smaller of the rows ``at``, and the costs of both."""
    before = found.take(at)
    cost = {k: getattr(before, k) + getattr(again, k) for k in ("gradients", "forwards", "queries")}
    better = (again.level < before.level).nonzero()[:, 0]
    return found.put(at, replace(before.put(better, again.take(better)), **cost))


def _merged(total: Attacked, index: Tensor, new: Attacked, member: int) -> Attacked:
    """The smaller of the two eps for each image of ``index``, and everything that was spent."""
    old = total.take(index)
    better = new.reached & (new.level < old.level)
    # what failed is kept as the last attempt, unless a success is there already
    replaced = better | ~(old.reached | new.reached)
    images = torch.where(replaced.view(-1, 1, 1, 1).to(old.images.device), new.images, old.images)
    assert old.by is not None
    merged = replace(
        old,
        images=images,
        reached=old.reached | new.reached,
        level=torch.minimum(old.level, new.level),
        gradients=old.gradients + new.gradients,
        forwards=old.forwards + new.forwards,
        queries=old.queries + new.queries,
        by=torch.where(better, member, old.by),
    )
    return total.put(index, merged)
