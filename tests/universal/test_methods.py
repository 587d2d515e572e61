"""On a linear network the best universal perturbation is known; the published method equals its pseudo-code."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.universal import DFUAP, SGA, SGDUAP, Noise, Sequential, Varied
from tests.nets import Linear, bumpy, grey, linear

FAST = [SGDUAP(), SGA(), DFUAP()]
NORMS = [mr.Linf, mr.L2]


def needed(clf: mr.Classifier, images: torch.Tensor, target: int, norm: type) -> float:
    """The smallest eps at which one perturbation sends every image to the target of a two-class linear network."""
    weight = clf.net.weight.detach()
    w = (weight[target] - weight[1 - target]) if weight.shape[0] == 2 else (2 * target - 1) * weight[0]
    logits = clf.logits(images)
    short = float((logits[:, 1 - target] - logits[:, target]).max())
    return short / float(w.abs().sum() if norm is mr.Linf else w.norm())


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(("head", "target"), [("softmax", 1), ("logit", 0)])
@pytest.mark.parametrize("method", FAST, ids=repr)
def test_a_target_is_reached_where_the_closed_form_says_so_and_not_below(method, head, target, norm):
    clf, images = linear(2, head=head), grey(48)
    eps = needed(clf, images, target, norm)
    # Adam steps alike in every pixel, which is not the steepest way in L2
    enough = 1.5 if isinstance(method, DFUAP) and norm is mr.L2 else 1.05
    over, under = (method(clf, images, mr.Targeted(target), norm(eps * f)) for f in (enough, 0.95))
    rate = {f: mr.universal.judge(clf, images, v).targeted_success.value for f, v in ((1, over), (0, under))}
    assert rate[1] == 1
    assert rate[0] < 1


@pytest.mark.parametrize("method", [SGDUAP(), SGA()], ids=repr)
def test_the_direction_is_the_weight_difference_or_its_sign(method):
    clf, images = linear(2), grey(48)
    w = (clf.net.weight[1] - clf.net.weight[0]).detach().view(1, 6, 6)
    eps = 0.9 * needed(clf, images, 1, mr.L2)  # too little: all of it is used
    delta = method(clf, images, mr.Targeted(1), mr.L2(eps)).delta
    assert torch.allclose(delta, eps * w / w.norm(), atol=1e-3 * eps)
    eps = 0.9 * needed(clf, images, 1, mr.Linf)
    delta = method(clf, images, mr.Targeted(1), mr.Linf(eps)).delta
    assert torch.allclose(delta, eps * w.sign(), atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("head", ["softmax", "logit"])
@pytest.mark.parametrize("method", FAST, ids=repr)
def test_nontargeted_on_two_linear_classes_reaches_the_cap(method, head, norm):
    """Both classes pull on one direction, in opposite ways: nothing is better than the larger one's share."""
    clf, images = linear(2, head=head), grey(60)
    v = method(clf, images, mr.Untargeted(), norm(1.5 * max(needed(clf, images, t, norm) for t in (0, 1))))
    outcome = mr.universal.judge(clf, images, v)
    assert outcome.fooling_rate.value == outcome.cap.value > 0.5


@pytest.mark.parametrize("method", [SGDUAP(), SGA(), DFUAP()], ids=repr)
def test_a_rare_class_that_falls_first_and_not_quite_does_not_hide_the_larger_one(method):
    """Of 30 images of the rarer class 25 lie at the boundary and draw the climb; 70 of the other fall as well."""
    eps, reach = 0.05, 3.5
    weight = torch.full((1, 36), reach / (36 * eps) / 2)
    weight = torch.cat([-weight, weight])
    clf = mr.Classifier(Linear(weight, -weight.sum(1) / 2), ["rarer", "larger"], channels=1)
    margins = torch.tensor([3.0] * 70 + [-0.2] * 25 + [-10.0] * 5)
    images = (0.5 + margins * eps / reach).view(-1, 1, 1, 1).expand(-1, 1, 6, 6).clone()
    assert torch.equal(clf.predict(images), (margins > 0).long())
    v = method(clf, images, mr.Untargeted(), mr.Linf(eps))
    assert mr.universal.judge(clf, images, v).fooling_rate.value >= 0.7


class Ridge(nn.Module):
    """Two classes told apart by |a . x| > 1 alone: an image of either leaves its class along a, not the same way."""

    def __init__(self, a: torch.Tensor, b: torch.Tensor) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(a), nn.Parameter(b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1) - 0.5
        # class 1 where the two features have the same sign: moving along one of them flips every image
        z = 20 * torch.tanh(x @ self.a) * torch.tanh(x @ self.b)
        return torch.stack([-z, z], 1)


@pytest.mark.parametrize("method", FAST, ids=repr)
def test_nontargeted_goes_beyond_the_cap_where_decisions_can_change_both_ways(method):
    a, b = torch.zeros(36), torch.zeros(36)
    a[:18], b[18:] = 1.0, 1.0
    clf = mr.Classifier(Ridge(a, b), ["same", "other"], channels=1)
    images = torch.full((64, 1, 6, 6), 0.5)
    signs = torch.randint(0, 2, (64,), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    # the first feature is +0.36 in all images; the second tells the class
    images.flatten(1)[:, :18] += 0.02
    images.flatten(1)[:, 18:] += 0.02 * signs[:, None]
    v = method(clf, images, mr.Untargeted(), mr.Linf(0.05))
    outcome = mr.universal.judge(clf, images, v)
    assert outcome.cap.value < 0.7
    assert outcome.fooling_rate.value == 1


def literal(clf, images, target, ball, step, passes, orders):
    """Hirano & Takemoto 2020, line by line, one image at a time and without clipping."""
    clean, v, rates = clf.predict(images), torch.zeros(images.shape[1:]), []
    for order in orders[:passes]:
        for i in order.tolist():
            x = images[i : i + 1]
            before = int(clf(x + v).argmax())
            if before == target if target is not None else before != int(clean[i]):
                continue
            leaf = (x + v).detach().requires_grad_()
            label = torch.tensor([int(clean[i]) if target is None else target])
            (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(clf(leaf).double(), label), leaf)
            nonzero = x + v + (step if target is None else -step) * gradient.sign()
            after = int(clf(nonzero).argmax())
            if after == target if target is not None else after != before:
                v = ball.project(nonzero - x)[0]
        after = clf(images + v).argmax(1)
        rates.append(float((after == target if target is not None else after != clean).float().mean()))
        if rates[-1] == 1:
            break
    return v.detach(), rates


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("target", [None, 2])
def test_sequential_is_the_pseudo_code(target, norm):
    clf, images, passes = bumpy(3), torch.rand(24, 1, 12, 12, generator=torch.Generator().manual_seed(2)), 4
    ball, step = norm.relative(0.1, images), 0.03
    method = Sequential(step=step, passes=passes, clip=False)
    goal = mr.Untargeted() if target is None else mr.Targeted(target)
    v = method(clf, images, goal, ball, seed=5)
    orders = [mr.universal.UniversalTask(clf, images, goal, ball, None).order(5, p) for p in range(passes)]
    with clf.borrowed():
        wanted, rates = literal(clf, images, target, ball, step, passes, orders)
    assert v.nonzero
    assert torch.allclose(v.delta, wanted, atol=1e-6)
    assert [entry["rate"] for entry in v.history[:-1]] == pytest.approx(rates[: len(v.history) - 1])
    assert v.history[-1]["rate"] == pytest.approx(mr.universal.fooling_rate(clf, images, v).value) or target is not None


def test_sequential_that_never_crosses_stays_zero_and_says_why():
    clf, images = linear(3, side=6), torch.rand(16, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    v = Sequential(step=1e-6)(clf, images, mr.Untargeted(), mr.Linf(0.2))
    assert not v.nonzero
    assert "no image crossed the boundary" in v.why
    assert "says nothing about robustness" in v.why


def test_sequential_keeps_the_best_where_asked():
    clf, images = bumpy(3), torch.rand(24, 1, 12, 12, generator=torch.Generator().manual_seed(2))
    last, best = (
        Sequential(step=0.05, passes=6, keep=keep)(clf, images, mr.Untargeted(), mr.L2(1.0), seed=1)
        for keep in ("last", "best")
    )
    rates = [entry["rate"] for entry in last.history]
    assert max(rates) > rates[-1]
    assert mr.universal.fooling_rate(clf, images, best).value == pytest.approx(max(rates))
    assert mr.universal.fooling_rate(clf, images, last).value == pytest.approx(rates[-1])


class Deaf(nn.Module):
    """Cuts the graph: there is no gradient to follow."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.detach().mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


@pytest.mark.filterwarnings("ignore:No gradient reaches the image")
@pytest.mark.parametrize("method", [*FAST, Sequential()], ids=repr)
def test_a_zero_gradient_is_never_called_robust(method):
    clf = mr.Classifier(Deaf(), ["dark", "light"], channels=1)
    v = method(clf, grey(16), mr.Targeted(0), mr.Linf(0.1))
    assert not v.nonzero
    assert "nothing about robustness" in v.why


def test_noise_is_a_source_keyed_by_position():
    noise = Noise(10, (1, 6, 6), seed=4)
    assert len(noise) == 10
    assert torch.equal(noise.images([3, 7])[1:], noise.images([7]))
    assert 0 <= float(noise.images(range(10)).min()) < 0.1
    assert 0.9 < float(noise.images(range(10)).max()) <= 1
    clf = linear(3)
    v = SGA()(clf, noise, mr.Targeted(1), mr.L2(2.0))
    assert mr.universal.judge(clf, grey(30), v).targeted_success.value == 1


def test_variants_are_keyed_by_position_and_get_more_answers_than_the_images_they_are_of():
    images = 0.6 + 0.3 * torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    varied = Varied(images, 40, seed=2)
    assert len(varied) == 40
    shown = varied.images(range(40))
    assert shown.shape == (40, 3, 16, 16)
    assert 0 <= float(shown.min()) <= float(shown.max()) <= 1
    assert torch.equal(varied.images([7, 31]), shown[[7, 31]])
    assert not torch.equal(shown[2], shown[7])  # the same image, another variant
    bright = mr.Classifier(Bright(), ["dark", "light"], channels=3)
    assert bright.predict(images).unique().tolist() == [1]
    assert bright.predict(shown).unique().tolist() == [0, 1]
    with pytest.raises(mr.InputError, match="at least one image"):
        Varied(images[:0], 4)


class Bright(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)


def test_a_network_that_is_sure_beyond_what_float32_holds_is_still_moved():
    """Cross-entropies of e^-500 and less: their gradients are zero in float32, and in float64 soon after."""
    clf = linear(2, scale=10_000.0)
    images = 0.3 + 0.4 * torch.rand(24, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    gap = (clf.logits(images) @ torch.tensor([-1.0, 1.0])).abs().min()
    assert gap > 100
    v = SGDUAP()(clf, images, mr.Untargeted(), mr.Linf(0.3))
    assert v.nonzero
    assert mr.universal.fooling_rate(clf, images, v).value > 0.3


@pytest.mark.parametrize("method", [*FAST, Sequential(step=1e-3)], ids=repr)
def test_what_does_nothing_to_its_own_images_says_so(method):
    clf, images = linear(3, side=6), grey(24)
    far = images[clf.logits(images).sort(1).values.diff(dim=1)[:, -1] > 0.5]
    v = method(clf, far, mr.Untargeted(), mr.Linf(1e-4))
    assert mr.universal.fooling_rate(clf, far, v).value == 0
    assert ("never left the start" if v.nonzero else "stayed zero") in v.why
    assert "says nothing about robustness" in v.why


def test_the_share_reached_is_told_on_the_way():
    told = []
    v = SGA()(linear(2), grey(60), mr.Targeted(1), mr.L2(2.0), watch=told.append)
    assert v.history[-1]["rate"] == 1
    assert all(0 <= rate <= 1 for rate in told)
    assert max(told) > 0.9 > told[0]


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
@pytest.mark.parametrize("method", [SGA, SGDUAP, DFUAP])
def test_what_ends_inside_the_ball_is_scaled_to_its_edge(method, norm):
    clf, images = linear(2), grey(8)
    ball = norm(1.0 if norm is mr.Linf else 10.0)  # far more than these eight images need
    inside = method(passes=20, step=0.01, balance=False, stretch=False)(clf, images, mr.Targeted(1), ball)
    edge = method(passes=20, step=0.01, balance=False)(clf, images, mr.Targeted(1), ball)
    assert 0 < inside.size < 0.9 * float(ball.eps)
    assert edge.size == pytest.approx(float(ball.eps), rel=1e-5)
    assert torch.allclose(edge.delta, inside.delta * (edge.size / inside.size), atol=1e-5)
    nothing = method()(clf, images, mr.Targeted(1), norm(0.0))
    assert not nothing.nonzero
