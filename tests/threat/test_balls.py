"""The geometry of Linf, L2, L1 and L0 as properties, and what goals ask for."""

from __future__ import annotations

import math

import pytest
import torch

import medrobust as mr
from medrobust.heads import HEADS
from medrobust.threat import L0, L1
from medrobust.threat.balls import TOLERANCE
from tests.nets import grey

NORMS = [pytest.param(mr.Linf, id="linf"), pytest.param(mr.L2, id="l2"), pytest.param(L1, id="l1")]
EPS = {mr.Linf: 0.05, mr.L2: 0.6, L1: 2.0}


def deltas(n: int = 40, scale: float = 1.0) -> torch.Tensor:
    """Perturbations of very different sizes: from far inside to far outside of every ball used here."""
    g = torch.Generator().manual_seed(3)
    return torch.randn(n, 3, 5, 5, generator=g) * torch.logspace(-4, 1, n).view(-1, 1, 1, 1) * scale


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_idempotent_stays_inside_and_leaves_inner_points_alone(norm):
    ball, delta = norm(EPS[norm]), deltas()
    inside = ball.size(delta) <= ball.eps
    once = ball.project(delta)
    assert 5 < int(inside.sum()) < 35
    assert (ball.size(once) <= ball.eps * (1 + 1e-6)).all()
    assert torch.equal(once[inside], delta[inside])
    torch.testing.assert_close(ball.project(once), once, rtol=1e-6, atol=1e-6 if norm is L1 else 0)
    assert (once * delta >= 0).all()


def test_a_short_vector_does_not_grow():
    """adv_lib's l2_projection takes a vector of norm 0.1 to norm 1."""
    short = torch.zeros(1, 1, 4, 4)
    short[0, 0, 0, 0] = 0.1
    assert torch.equal(mr.L2(1.0).project(short), short)
    for tiny in (0.0, 1e-30, 1e-42):
        assert torch.equal(mr.L2(1.0).project(short * tiny), short * tiny)


def test_l2_projection_is_the_nearest_point():
    ball, delta = mr.L2(0.5), deltas()
    near = ball.size(ball.project(delta) - delta)
    torch.testing.assert_close(near, (ball.size(delta) - 0.5).clamp_min(0), atol=1e-5, rtol=1e-5)


def test_l1_projection_takes_the_same_from_every_value_that_is_left():
    delta = torch.tensor([3.0, -2.0, 0.5, 0.0]).view(1, 1, 2, 2)
    assert L1(3.0).project(delta).flatten().tolist() == [2.0, -1.0, 0.0, 0.0]
    assert torch.equal(L1(math.inf).project(delta), delta)


def test_l0_keeps_the_largest_changes_as_they_are():
    delta = torch.tensor([0.3, -0.5, 0.0, 0.4]).view(1, 1, 2, 2)
    assert L0(2).project(delta).flatten().tolist() == pytest.approx([0.0, -0.5, 0.0, 0.4])
    assert L0(0.0).size(delta).item() == 3
    assert L0(2.7).whole(255) == L0(2)
    assert bool(L0(3).legal(delta * 0 + 0.5, delta + 0.5))
    assert not bool(L0(2).legal(delta * 0 + 0.5, delta + 0.5))


@pytest.mark.parametrize("norm", [*NORMS, pytest.param(L0, id="l0")])
def test_the_nearest_perturbation_of_a_gain_uses_no_more_room_and_none_is_smaller(norm):
    g = torch.Generator().manual_seed(7)
    gradient, room = torch.randn(60, 1, 4, 4, generator=g), 0.5 * torch.rand(60, 1, 4, 4, generator=g)
    most = (gradient.abs() * room).flatten(1).sum(1)
    gain = most * torch.linspace(0, 1.2, 60)
    ball = norm(0.0)
    delta = ball.nearest(gradient, gain, room)
    torch.testing.assert_close((delta * gradient).flatten(1).sum(1), gain.minimum(most), atol=1e-5, rtol=1e-5)
    assert (delta.abs() <= room + 1e-6).all()
    for power in range(1, 9):  # other perturbations of the same gain
        other = room * gradient.sign() * torch.rand(gradient.shape, generator=g) ** power
        scale = (gain / (other * gradient).flatten(1).sum(1)).view(-1, 1, 1, 1)
        inside = ((other * scale).abs() <= room).flatten(1).all(1)
        assert (ball.size(delta) <= ball.size(other * scale) + 1e-4)[inside].all()


@pytest.mark.parametrize("norm", NORMS)
def test_move_keeps_in_the_box_and_in_the_ball(norm):
    g = torch.Generator().manual_seed(1)
    origin = torch.rand(40, 3, 5, 5, generator=g)
    origin[:10], origin[10:20] = 0.0, 1.0
    ball = norm(EPS[norm])
    moved = ball.move(origin, origin + deltas(scale=3.0))
    assert ball.legal(origin, moved).all()
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert torch.equal(ball.move(origin, origin), origin)


@pytest.mark.parametrize("norm", NORMS)
def test_ascent_has_size_one_and_meets_the_dual_norm(norm):
    ball, gradient = norm(EPS[norm]), deltas()
    step = ball.ascent(gradient)
    torch.testing.assert_close(ball.size(step), torch.ones(40))
    inner = (step * gradient).flatten(1).sum(1)
    torch.testing.assert_close(inner, ball.dual_norm(gradient))
    # Hoelder: no other perturbation of size 1 does better
    other = ball.ascent(deltas().flip(0))
    assert ((other * gradient).flatten(1).sum(1) <= inner + 1e-6).all()


@pytest.mark.parametrize("norm", NORMS)
def test_zero_gives_zero_and_tiny_gradients_keep_their_direction(norm):
    ball, gradient = norm(EPS[norm]), deltas(8)
    assert torch.equal(ball.ascent(gradient * 0), torch.zeros_like(gradient))
    assert torch.equal(ball.at_edge(gradient * 0), torch.zeros_like(gradient))
    unit = gradient / gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
    torch.testing.assert_close(ball.ascent(unit * 1e-30), ball.ascent(unit))
    torch.testing.assert_close(ball.ascent(unit * 1e30), ball.ascent(unit))


@pytest.mark.parametrize("norm", NORMS)
def test_a_draw_is_inside_uniform_and_keyed_by_seed_and_id(norm):
    ball, shape = norm(0.1), (1, 2, 2)
    ids = list(range(400))
    drawn = ball.draw(0, "start", ids, shape)
    size = norm(1.0).size(drawn)
    assert (size <= 1 + 1e-6).all()
    # uniform in a ball of 4 dimensions: half of the volume lies within 0.5 ** (1 / 4)
    assert float((size <= 0.5**0.25).float().mean()) == pytest.approx(0.5, abs=0.08)
    assert drawn.mean().abs() < 0.05
    assert torch.equal(ball.draw(0, "start", [7, 399], shape), drawn[[7, 399]])
    assert not torch.equal(ball.draw(1, "start", [7], shape), drawn[[7]])
    assert not torch.equal(ball.draw(0, "restart", [7], shape), drawn[[7]])


@pytest.mark.parametrize("norm", NORMS)
def test_rows_may_have_an_eps_each(norm):
    eps = torch.linspace(0.01, 0.9, 40)
    rows, delta = norm(0.0).at(eps), deltas()
    each = torch.cat([norm(float(e)).project(d[None]) for e, d in zip(eps, delta, strict=True)])
    torch.testing.assert_close(rows.project(delta), each)
    origin = torch.full_like(delta, 0.5)
    assert rows.legal(origin, rows.move(origin, origin + delta)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_legal_forgives_rounding_and_nothing_else(norm):
    ball, origin = norm(0.1), torch.full((1, 1, 1, 1), 0.5)
    for beyond, fine in ((0.0, True), (TOLERANCE / 2, True), (TOLERANCE * 3, False)):
        assert bool(ball.legal(origin, origin + 0.1 + beyond)) is fine
    for pixel in (-1e-7, 1 + 1e-6, math.nan, math.inf):
        assert not bool(norm(1.0).legal(origin, torch.full_like(origin, pixel)))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("eps", [-1 / 255, math.nan, -math.inf])
def test_a_size_that_is_none_is_refused(norm, eps):
    with pytest.raises(mr.InputError, match="must not be negative"):
        norm(eps)


@pytest.mark.parametrize("eps", [8, 1.01, 255])
def test_grey_levels_given_for_fractions_are_refused_with_the_mend(eps):
    with pytest.raises(mr.InputError, match=f"{eps:g}/255"):
        mr.Linf(eps)
    assert mr.L2(float(eps)).eps == eps


@pytest.mark.parametrize("norm", NORMS)
def test_a_relative_ball_is_a_share_of_the_images_own_norm(norm):
    images = grey(12, spread=0.2)
    flat = images.flatten(1)
    sizes = {"linf": flat.amax(1), "l2": flat.pow(2).sum(1).sqrt(), "l1": flat.sum(1)}[norm.name]
    assert norm.relative(0.04, images).eps == pytest.approx(0.04 * float(sizes.mean()), rel=1e-5)
    for zeta in (0, -0.1, math.nan):
        with pytest.raises(mr.InputError, match="zeta must be positive"):
            norm.relative(zeta, images)


def test_balls_are_values():
    assert mr.Linf(1 / 255) == mr.Linf(1 / 255)
    assert mr.Linf(1 / 255) != mr.L2(1 / 255)
    assert len({mr.L2(0.5), mr.L2(0.5), mr.L2(0.6)}) == 2
    assert repr(mr.Linf(2 / 255)) == "Linf(2.0/255)"


@pytest.mark.parametrize("head", HEADS)
def test_a_goal_s_margin_is_positive_exactly_where_it_is_reached(head):
    g = torch.Generator().manual_seed(5)
    k = 2 if head == "logit" else 4
    asked, logits = HEADS[head](), 4 * torch.randn(50, k, generator=g)
    labels = torch.randint(0, k, (50,), generator=g)
    goals = [mr.Targeted(1), mr.Targeted(labels)]
    goals.append(mr.Untargeted((torch.rand(50, k, generator=g) > 0.5).long() if head == "multilabel" else labels))
    for goal in goals:
        ready = goal.prepare(asked, k, 50, logits.device)
        reached = ready.reached(asked, logits)
        assert 0 < int(reached.sum()) < 50
        assert torch.equal(ready.margin(asked, logits) > 0, reached)
        index = torch.tensor([3, 40])
        assert torch.equal(ready.take(index).margin(asked, logits[index]), ready.margin(asked, logits)[index])


def test_the_loss_to_ascend_does_not_saturate_on_confident_models():
    """Plain cross-entropy of a confident model is 0 in float32, and so is its gradient."""
    logits = torch.tensor([[200.0, -200.0]], requires_grad=True)
    goal = mr.Untargeted(torch.tensor([0]))
    mr.threat.cross_entropy(goal, HEADS["softmax"](), logits).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0, 1] > 0.5
    assert logits.grad[0, 0] < -0.5
