"""Black-box universal perturbations: queries alone, counted to the last one, and what they reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.fft import idctn
from torch import nn

import medrobust as mr
from medrobust.attacks.lowfreq import LowFrequency, outwards, reach
from medrobust.universal import TileSearch, UniversalTask, USimBA
from tests.nets import bumpy, grey, linear

QUICK = {"simba": lambda queries: USimBA(queries, step=0.2), "tile": lambda queries: TileSearch(queries)}
GOALS = [mr.Untargeted(), mr.Targeted(1)]
NORMS = [mr.Linf, mr.L2]


class Watched(nn.Module):
    """A network that counts the rows it sees, and refuses to be differentiated once it is watched."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.rows, self.watching = net, 0, False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.watching:
            assert not torch.is_grad_enabled()
            assert not x.requires_grad
            self.rows += len(x)
        return self.net(x)


def watched(classes: int, head: str) -> mr.Classifier:
    """One row a forward pass, so that no padding hides a query."""
    plain = linear(classes, head=head)
    clf = mr.Classifier(Watched(plain.net), plain.classes, head=head, channels=1, batch_size=1)
    clf.logits(grey(1))
    clf.net.watching = True
    return clf


@pytest.mark.parametrize(
    ("head", "classes", "goal", "norm"),
    [
        ("softmax", 2, mr.Untargeted(), mr.Linf),
        ("logit", 2, mr.Targeted(1), mr.L2),
        ("softmax", 4, mr.Targeted(1), mr.Linf),
        ("softmax", 4, mr.Untargeted(), mr.L2),
    ],
)
@pytest.mark.parametrize("name", QUICK)
def test_every_query_is_counted_none_is_beyond_the_budget_and_no_gradient_is_taken(name, head, classes, goal, norm):
    images, told = grey(20), []
    for budget in (120, 333):
        clf = watched(classes, head)
        v = QUICK[name](budget)(clf, images, goal, norm.relative(0.02, images), advance=told.append)
        assert clf.net.rows == v.provenance["queries"] <= budget
        assert v.provenance["gradients"] == 0
        asked = [entry["queries"] for entry in v.history]
        assert asked == sorted(set(asked))
        assert asked[-1] <= v.provenance["queries"]
        outcome = mr.universal.judge(clf, images, v)
        after = outcome.fooling_rate if v.target is None else outcome.targeted_success
        assert v.history[-1]["rate"] == pytest.approx(after.value)


@pytest.mark.parametrize("name", QUICK)
def test_a_budget_that_is_too_small_is_refused_before_the_first_query(name):
    clf = watched(2, "softmax")
    with pytest.raises(mr.InputError, match="queries are too few for 20 images; give at least"):
        QUICK[name](60)(clf, grey(20), mr.Untargeted(), mr.Linf(0.1))
    assert clf.net.rows == 0


def test_cosine_patterns_are_those_of_the_discrete_cosine_transform():
    basis = LowFrequency((2, 9, 7), 9)
    assert basis.shape == (2, 9, 7)
    one = np.zeros((9, 7))
    one[3, 5] = 1
    pattern = basis.basis(1, 3, 5)
    assert not pattern[0].any()
    assert np.allclose(pattern[1], idctn(one, norm="ortho"), atol=1e-6)
    assert float(pattern.norm()) == pytest.approx(1, abs=1e-6)
    flat = torch.stack([basis.basis(0, i, j)[0].flatten() for i in range(9) for j in range(7)])
    assert torch.allclose(flat @ flat.T, torch.eye(63), atol=1e-5)


def test_patterns_are_tried_outwards_each_once_a_round():
    order = outwards((2, 8, 8), 3, 2, seed=0)
    first = [next(order) for _ in range(128)]
    assert set(first) == {(c, i, j) for c in range(2) for i in range(8) for j in range(8)}
    rims = [max(row, column) for _, row, column in first]
    assert max(rims[:18]) == 2
    assert {*rims[18:50]} == {3, 4}
    again = [next(order) for _ in range(128)]
    assert set(again) == set(first)
    assert again != first
    other = outwards((2, 8, 8), 3, 2, seed=1)
    assert [next(other) for _ in range(128)] != first


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("goal", GOALS, ids=["untargeted", "targeted"])
def test_u_simba_is_its_pseudo_code(goal, norm):
    clf, images, side = bumpy(3), torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(2)), 16
    ball, budget = norm.relative(0.1, images), 12 * 40
    method = USimBA(budget, step=0.3, frequencies=4, stride=3)
    v = method(clf, images, goal, ball, seed=5)

    own = clf.predict(images) if v.target is None else torch.full((12,), v.target)
    sign = -1 if v.target is None else 1

    def total(delta):
        p = clf.logits((images + delta).clamp(0, 1)).double().softmax(1)
        return sign * float(p.gather(1, own[:, None]).sum())

    delta, best = torch.zeros(1, side, side), None
    order = outwards((1, side, side), 4, 3, seed=5)
    used = 12 * (2 if v.target is None else 1)
    best = total(delta)
    while used + 2 * 12 <= budget:
        channel, row, column = next(order)
        one = np.zeros((1, side, side))
        one[channel, row, column] = 1
        q = torch.from_numpy(idctn(one, axes=(1, 2), norm="ortho")).float()
        step = 0.3 * reach(ball, (1, side, side)) * q
        plus, minus = (ball.project((delta + s * step)[None])[0] for s in (1, -1))
        up, down = total(plus), total(minus)
        used += 24
        if max(up, down) > best:
            best, delta = (up, plus) if up >= down else (down, minus)
    assert torch.allclose(v.delta, delta, atol=1e-5)
    assert v.nonzero
    assert v.provenance["queries"] == used


@pytest.mark.filterwarnings("ignore:The network gave the same outputs for all 8 images")
def test_a_probability_that_never_moves_leaves_the_perturbation_at_zero_and_says_so():
    class Constant(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :2] * 0 + torch.tensor([2.0, -1.0])

    clf = mr.Classifier(Constant(), ("a", "b"), channels=1)
    for name in QUICK:
        v = QUICK[name](400)(clf, grey(10), mr.Untargeted(), mr.Linf(0.1))
        assert not v.nonzero
        assert "says nothing about robustness" in v.why


@pytest.mark.parametrize("norm", NORMS)
def test_the_search_finds_the_best_direction_of_a_linear_network(norm):
    clf, images = linear(2), grey(30)
    w = (clf.net.weight[1] - clf.net.weight[0]).detach().view(1, 6, 6)
    ball = norm(0.02 if norm is mr.Linf else 0.1)
    best = float(ball.eps) * float(ball.dual_norm(w[None]))
    gains = {}
    for name, make in QUICK.items():
        v = make(6000)(clf, images, mr.Targeted(1), ball)
        gains[name] = float((v.delta * w).sum()) / best
    assert gains["tile"] > 0.9
    assert gains["tile"] > gains["simba"]


def test_the_search_beats_hill_climbing_at_the_same_number_of_queries():
    clf = bumpy(3)
    images = torch.rand(160, 1, 16, 16, generator=torch.Generator().manual_seed(2))
    made, held = images[:80], images[80:]
    for goal in (mr.Untargeted(), mr.Targeted(2)):
        rate = {}
        for name, make in QUICK.items():
            outcome = mr.universal.judge(clf, held, make(4000)(clf, made, goal, mr.L2.relative(0.1, made)))
            found = outcome.fooling_rate if isinstance(goal, mr.Untargeted) else outcome.targeted_success
            rate[name] = found.value
        assert rate["tile"] > rate["simba"] + 0.1


@pytest.mark.parametrize("rare", [0, 1])
def test_the_search_sends_all_into_a_class_that_held_at_most_half_of_them(rare):
    clf, images = linear(2), torch.rand(200, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    clean = clf.predict(images)
    few, many = images[clean == rare][:10], images[clean == 1 - rare][:30]
    both = torch.cat([few, many])
    assert (len(few), len(many)) == (10, 30)
    ball = mr.L2.relative(0.5, both)
    v = TileSearch(4000)(clf, both, mr.Untargeted(), ball)
    assert {entry["toward"] for entry in v.history[1:]} == {rare}
    assert (clf.predict(v.apply(both)) == rare).all()
    assert v.history[-1]["rate"] == 0.75
    free = TileSearch(4000, majority_class=False)(clf, both, mr.Untargeted(), ball)
    assert {entry["toward"] for entry in free.history} == {-1}


def test_where_nothing_moved_or_most_were_there_before_there_is_no_class_to_go_to():
    clf, images = linear(2), torch.rand(200, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    clean = clf.predict(images)
    task = UniversalTask(clf, images[clean == 0], mr.Untargeted(), mr.L2(10.0), None)
    before = task.queries
    assert task.moves(task.zero()) == (0.0, None)
    assert task.queries - before == task.n
    w = (clf.net.weight[1] - clf.net.weight[0]).detach().view(1, 6, 6)
    rate, nonzero = task.moves(10 * w / w.norm())
    assert rate > 0
    assert nonzero == 1
    mostly = UniversalTask(
        clf, torch.cat([images[clean == 0][:3], images[clean == 1][:2]]), mr.Untargeted(), mr.L2(10.0), None
    )
    assert mostly.moves(-10 * w / w.norm()) == (2 / 5, None)
    assert UniversalTask(clf, images, mr.Targeted(1), mr.L2(1.0), None).moves(task.zero())[1] is None
