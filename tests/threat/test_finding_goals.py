"""Goals on several findings: on a linear network the smallest change that reaches each is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize

import medrobust as mr
from medrobust.attacks import FMN, PGD, DeepFool, Square
from medrobust.attacks.queried import queried
from medrobust.heads import HEADS
from medrobust.threat import FindingGoal, GoalKind, OneOf, parse_goal
from tests.nets import linear

HEAD = HEADS["multilabel"]()
KINDS = [
    FindingGoal(GoalKind.ANY),
    FindingGoal(GoalKind.HIDE_ALL),
    FindingGoal(GoalKind.OCCURRING),
    FindingGoal(GoalKind.HIDE, 1),
    FindingGoal(GoalKind.INVENT, 2),
    FindingGoal(GoalKind.ONLY, 0),
]
SETS = torch.tensor([[0, 0, 0], [1, 1, 0], [0, 1, 1]])


def named(kinds):
    return pytest.mark.parametrize("goal", kinds, ids=lambda g: g.named("abc"))


@pytest.fixture
def system():
    clf = linear(3, head="multilabel")
    images = 0.5 + 0.02 * torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(2))
    return clf, images, clf.logits(images)


def wanted_sets(goal, decisions):
    """Every decision, as rows of 0 and 1, that reaches the goal from this one: straight from its words."""
    every = [tuple(int(b) for b in f"{i:03b}") for i in range(8)]
    f = goal.finding
    reach = {
        GoalKind.ANY: lambda s: s != decisions,
        GoalKind.HIDE_ALL: lambda s: s == (0, 0, 0),
        GoalKind.OCCURRING: lambda s: list(s) in SETS.tolist() and s != decisions,
        GoalKind.HIDE: lambda s: s[f] == 0,
        GoalKind.INVENT: lambda s: s[f] == 1,
        GoalKind.ONLY: lambda s: all((a != b) == (j == f) for j, (a, b) in enumerate(zip(s, decisions, strict=True))),
    }[goal.kind]
    return [s for s in every if reach(s)]


@named(KINDS)
def test_a_goal_is_reached_exactly_where_its_words_say_so_and_there_its_margin_is_positive(goal, system):
    _, _, clean = system
    ready = goal.on(clean, HEAD, sets=SETS).prepare(HEAD, 3, 12, clean.device)
    for seed in range(20):
        logits = torch.randn(12, 3, generator=torch.Generator().manual_seed(seed))
        reached = ready.reached(HEAD, logits)
        decided = [tuple(row) for row in HEAD.decide(logits).tolist()]
        before = [tuple(row) for row in HEAD.decide(clean).tolist()]
        assert reached.tolist() == [d in wanted_sets(goal, b) for d, b in zip(decided, before, strict=True)]
        assert torch.equal(ready.margin(HEAD, logits) > 0, reached)
        index = torch.tensor([7, 2])
        assert torch.equal(ready.take(index).margin(HEAD, logits[index]), ready.margin(HEAD, logits)[index])


@named(KINDS)
def test_the_loss_of_a_confident_classifier_keeps_its_gradient_and_its_direction(goal, system):
    logits = (300 * system[2].double().sign()).requires_grad_()
    ready = goal.on(logits.detach(), HEAD, sets=SETS).prepare(HEAD, 3, 12, logits.device)
    mr.threat.cross_entropy(ready, HEAD, logits).sum().backward()
    assert torch.isfinite(logits.grad).all()
    open_ = ~ready.reached(HEAD, logits)
    assert open_.any()
    assert (logits.grad[open_].abs().amax(1) > 1e-4).all()
    stepped = logits.detach() + 1e-2 * logits.grad
    assert (ready.cross_entropy(HEAD, stepped) > ready.cross_entropy(HEAD, logits))[open_].all()


def test_an_unknown_finding_takes_part_in_nothing(system):
    clean = system[2]
    labels = HEAD.decide(clean)
    labels[:, 2] = -1
    for goal in (g for g in KINDS if g.finding != 2):
        ready = goal.on(clean, HEAD, labels, SETS).prepare(HEAD, 3, 12, clean.device)
        turned = clean * torch.tensor([1.0, 1.0, -1.0])
        assert torch.equal(ready.margin(HEAD, clean), ready.margin(HEAD, turned)), goal
    assert not FindingGoal(GoalKind.INVENT, 2).concerns(HEAD.decide(clean), labels).any()


def exact(net, image, wanted, norm):
    """The smallest size, over the decisions ``wanted``, of a change that gives that decision (a linear network)."""
    weight, x = net.weight.detach().double().numpy(), image.flatten().double().numpy()
    z, sizes = weight @ x + net.bias.detach().double().numpy(), []
    for target in wanted:
        s = 2 * np.array(target) - 1.0
        a, b = s[:, None] * weight, s * z  # a d + b >= 0
        if norm == "linf":
            d = x.size
            bounds = [(-0.5, 0.5)] * d + [(0, None)]
            rows = np.concatenate([np.eye(d), -np.eye(d)])
            upper = np.concatenate([np.c_[-a, np.zeros(3)], np.c_[rows, -np.ones(2 * d)]])
            done = linprog(np.r_[np.zeros(d), 1], upper, np.r_[b, np.zeros(2 * d)], bounds=bounds)
        else:
            constraint = {"type": "ineq", "fun": lambda v, a=a, b=b: a @ v + b, "jac": lambda _, a=a: a}
            start = np.linalg.lstsq(a, -b, rcond=None)[0]
            done = minimize(
                lambda v: v @ v, start, jac=lambda v: 2 * v, constraints=constraint, method="SLSQP", tol=1e-12
            )
        assert done.success
        sizes.append(done.fun if norm == "linf" else np.sqrt(done.fun))
    return min(sizes)


@named([g for g in KINDS if g.finding is None or g.kind is GoalKind.ONLY])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_smallest_change_of_a_whole_set_is_that_of_a_small_programme(goal, norm, system):
    clf, images, clean = system
    ball, before = mr.threat.BALLS[norm](1.0 if norm == "linf" else 3.0), HEAD.decide(clean)
    ready = goal.on(clean, clf.head, sets=SETS)
    open_ = (~ready.prepare(HEAD, 3, 12, clean.device).reached(HEAD, clean)).nonzero()[:, 0][:5]
    best = [exact(clf.net, images[i], wanted_sets(goal, tuple(before[i].tolist())), norm) for i in open_.tolist()]
    # each finding is a boundary of its own: DeepFool knows which is nearest, FMN follows the smallest logit
    attack = DeepFool(overshoot=0.0) if goal.kind is GoalKind.ANY else FMN(steps=200)
    attacked = attack(clf, images[open_], ready.take(open_), ball)
    assert ready.take(open_).reached(HEAD, clf.logits(attacked)).all()
    ratio = ball.size(attacked - images[open_]).double().numpy() / np.array(best)
    assert ratio.min() > 0.999
    # for Linf, a step along the sign of the gradient of one finding spoils what another needs
    loose = {GoalKind.HIDE_ALL: 1.7, GoalKind.OCCURRING: 1.3}.get(goal.kind, 1.01)
    assert ratio.max() < (loose if norm == "linf" else 1.01)


@named([FindingGoal(GoalKind.HIDE, 1), FindingGoal(GoalKind.INVENT, 2)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_smallest_change_of_one_finding_is_its_logit_over_the_dual_norm_of_its_weights(goal, norm, system):
    clf, images, clean = system
    f, ball = goal.finding, mr.threat.BALLS[norm](1.0 if norm == "linf" else 3.0)
    ready = goal.on(clean, clf.head)
    best = clean[:, f].abs() / clf.net.weight[f].detach().norm(p=1 if norm == "linf" else 2)
    open_ = (~ready.reached(HEAD, clean)).nonzero()[:, 0]
    assert len(open_)
    for attack in (DeepFool(overshoot=0.0), FMN()):
        attacked = attack(clf, images[open_], ready.take(open_), ball)
        assert torch.allclose(ball.size(attacked - images[open_]), best[open_], rtol=0.01)


@named(KINDS)
def test_attacks_with_and_without_gradients_reach_every_goal(goal, system):
    clf, images, clean = system
    ready, ball = goal.on(clean, clf.head, sets=SETS), mr.Linf(0.3)
    assert ready.reached(HEAD, clf.logits(PGD()(clf, images, ready, ball))).all()
    done = queried(Square(400), clf, images, ready, ball)
    assert torch.isfinite(done.queries_used).float().mean() > 0.8


def test_the_sets_that_occur_are_the_nearest_others():
    logits = torch.tensor([[3.0, -0.1, -2.0], [-3.0, -1.0, -2.0]])
    goal = FindingGoal(GoalKind.OCCURRING).on(logits, HEAD, sets=SETS)
    assert isinstance(goal, OneOf)
    # (1, 1, 0) needs one finding to rise by 0.1 from (1, 0, 0); (0, 0, 0) is what the second image has already
    assert goal.labels[0, 0].tolist() == [1, 1, 0]
    assert [0, 0, 0] not in goal.labels[1].tolist()
    with pytest.raises(mr.InputError, match="the same set"):
        FindingGoal(GoalKind.OCCURRING).on(logits[1:], HEAD, sets=SETS[:1])


def test_a_goal_in_words():
    for goal in KINDS:
        assert parse_goal(goal.named(["a", "b", "c"]), ["a", "b", "c"]) == goal
    with pytest.raises(mr.InputError, match="no finding 'nodule'; there are effusion, mass"):
        parse_goal("hide:nodule", ["effusion", "mass"])
    for text in ("hide", "any:a", "lose:a", ""):
        with pytest.raises(mr.InputError, match="only:FINDING"):
            parse_goal(text, ["a"])


def test_findings_go_by_name():
    goal = mr.Targeted(torch.tensor([[1, 0, -1]])).in_order_of("abc", "cab")
    assert goal.labels.tolist() == [[-1, 1, 0]]
    one = OneOf(torch.tensor([[[1, 0, -1], [0, 0, 1]]])).in_order_of("abc", "cab")
    assert one.labels.tolist() == [[[-1, 1, 0], [1, 0, 0]]]
