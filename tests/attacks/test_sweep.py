"""Searching with less work (the folded copy, going on from what was found, bfloat16), and that it costs no strength."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.attacks import BIM, FGSM, FMN, PGD, CWLinf, DeepFool, sweep, sweep_all
from medrobust.attacks.engine import run
from medrobust.attacks.loop import Loop, Options
from medrobust.heads import head_named
from medrobust.models import folded
from tests.nets import bumpy, grey, linear

GRID = [k / 255 for k in (0.25, 0.5, 1, 2, 4, 8, 16, 32)]


def network(*, residual: bool = True, last: int = 3) -> nn.Module:
    """Convolutions with BatchNorm whose statistics are far from 0 and 1."""
    torch.manual_seed(3)
    layers = [nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    layers += [nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    layers += [nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, last)]
    net = nn.Sequential(*layers)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.3, 3)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias)
    return net.eval()


def divided() -> tuple[mr.Classifier, torch.Tensor]:
    """A classifier whose classes share the images, and the images."""
    net, images = network(), torch.rand(40, 1, 12, 12, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        net[-1].weight.mul_(20)
        net[-1].bias.sub_(net(images).mean(0))
    return mr.Classifier(net, "abc"), images


def test_folding_keeps_the_function_and_leaves_no_batch_norm():
    net, images = network(), torch.rand(5, 1, 12, 12)
    twin = folded(net, (1, 12, 12))
    assert twin is not None
    assert not any(isinstance(m, nn.BatchNorm2d) for m in twin.modules())
    torch.testing.assert_close(twin(images), net(images), rtol=1e-5, atol=1e-6)


def test_a_convolution_that_sees_one_pixel_keeps_the_middle_of_its_kernel():
    twin = folded(network(), (1, 12, 12))
    assert twin is not None
    assert [m.kernel_size for m in twin.modules() if isinstance(m, nn.Conv2d)] == [(3, 3), (3, 3), (1, 1)]


def test_folding_leaves_the_network_as_it_was():
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    folded(net, (1, 12, 12))
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


class TwoReaders(nn.Module):
    """What the convolution gives is read twice: folding would change the second reading."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.norm.running_mean.fill_(0.5)

    def forward(self, x):
        inside = self.conv(x)
        return self.last((self.norm(inside) + inside).mean((2, 3)))


class SharedConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Linear(1, 2)
        self.norm.running_mean.fill_(0.5)

    def forward(self, x):
        return self.last(self.norm(self.conv(self.conv(x))).mean((2, 3)))


@pytest.mark.parametrize("net", [TwoReaders(), SharedConvolution(), nn.Sequential(nn.Flatten(), nn.Linear(144, 2))])
def test_what_can_not_be_folded_is_left_alone(net):
    assert folded(net.eval(), (1, 12, 12)) is None


def test_the_fast_classifier_is_made_again_when_weights_change():
    clf, images = mr.Classifier(network(), "abc"), torch.rand(2, 1, 12, 12)
    first = clf.fast(images.shape)
    assert clf.fast(images.shape) is first
    with torch.no_grad():
        clf.net[-1].bias.add_(1.0)
    again = clf.fast(images.shape)
    assert again is not first
    torch.testing.assert_close(again.logits(images), clf.logits(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("attack", [PGD(), BIM(), CWLinf(), FMN(steps=40), DeepFool()])
def test_every_success_of_a_fast_search_is_one_of_the_classifier_itself(attack):
    clf, images = divided()
    goal, grid = mr.Untargeted(clf.predict(images)), None if attack.minimal else GRID
    ball = mr.Linf(GRID[-1])
    done = run(attack, clf, images, goal, ball, grid=grid, fast=True)
    assert done.reached.any()
    outcome = mr.judge(clf, images, done.images, goal, mr.Linf(1.0))
    assert outcome.reached[done.reached].all()


def liar(clf: mr.Classifier) -> mr.Classifier:
    """A fast copy that always finds the second class a little too early: some of its successes are false."""
    net = network(last=3)
    net.load_state_dict(clf.net.state_dict())
    with torch.no_grad():
        net[-1].bias[1] += 0.3
    return mr.Classifier(net, clf.classes)


def test_false_successes_of_the_fast_copy_are_attacked_again(monkeypatch):
    clf, images = divided()
    goal, ball = mr.Untargeted(clf.predict(images)), mr.Linf(GRID[-1])
    plain = run(PGD(), clf, images, goal, ball, grid=GRID, fast=False)
    claimed = run(PGD(), liar(clf), images, goal, ball, grid=GRID, fast=False)
    false = claimed.reached & (clf.predict(claimed.images) == goal.labels)
    assert false.any()
    monkeypatch.setattr(mr.Classifier, "_made_fast", lambda self, shape, bfloat16: liar(clf))
    done = run(PGD(), clf, images, goal, ball, grid=GRID, fast=True)
    outcome = mr.judge(clf, images, done.images, goal, mr.Linf(1.0))
    assert outcome.reached[done.reached].all()
    assert torch.equal(done.level[false], plain.level[false])
    assert (done.gradients[false] > claimed.gradients[false]).all()


@pytest.mark.parametrize(("attack", "norm"), [(PGD(), mr.Linf), (BIM(), mr.L2), (CWLinf(), mr.L2)])
def test_going_on_from_what_was_found_is_no_weaker_than_beginning_from_nothing(attack, norm):
    """The accuracy at every eps is no higher than that of a march from nothing at every eps, but for one image."""
    clf, images = bumpy(), grey(48, side=16, seed=5)
    goal, grid = mr.Untargeted(clf.predict(images)), GRID if norm is mr.Linf else [e * 8 for e in GRID]
    warm = sweep(attack, clf, images, goal, norm, grid, search="warm")
    linear = sweep(attack, clf, images, goal, norm, grid, search="linear")
    for mine, theirs in zip(warm.accuracy, linear.accuracy, strict=True):
        assert mine.value <= theirs.value + 1.01 / len(images)
    assert warm.gradients.sum() < 0.7 * linear.gradients.sum()


def test_an_eps_star_is_exact_on_a_linear_model():
    """For two classes the smallest eps is known: margin over the L1 norm of the weight difference."""
    clf, images = linear(2), grey(30)
    weight = clf.net.weight
    logits = clf.logits(images)
    labels = logits.argmax(1)
    with torch.no_grad():
        exact = (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).abs().sum()
    grid = torch.linspace(float(exact.min()) / 2, float(exact.max()) * 1.2, 24).tolist()
    min_eps = sweep(PGD(), clf, images, mr.Untargeted(labels), mr.Linf, grid).min_eps
    expected = torch.tensor(grid)[torch.searchsorted(torch.tensor(grid), exact)]
    near = (torch.tensor(grid)[:, None] - exact).abs().amin(0) < 1e-3 * exact  # a tie with a level of the grid
    assert torch.equal(min_eps[~near], expected[~near])


def test_bfloat16_finds_what_float32_finds():
    clf, images = divided()
    goal, ball = mr.Untargeted(clf.predict(images)), mr.Linf(2 / 255)
    plain = run(PGD(), clf, images, goal, ball)
    coarse = run(PGD(), clf, images, goal, ball, bfloat16=True)
    outcome = mr.judge(clf, images, coarse.images, goal, ball)
    assert torch.equal(outcome.reached, coarse.reached)
    assert (coarse.reached >= plain.reached).all()
    with pytest.raises(mr.InputError, match="one eps"):
        run(PGD(), clf, images, goal, ball, grid=GRID, bfloat16=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_run_below_eps_star_ends_where_no_point_of_the_ball_reaches_to_first_order(classes):
    """On a linear model the first gradient below eps* decides, and a few more find the success."""
    clf, images = linear(classes), grey(20)
    goal = mr.Untargeted(clf.predict(images))
    grid = [k / 2000 for k in range(1, 120)]
    warm = sweep(CWLinf(), clf, images, goal, mr.Linf, grid)
    linear_search = sweep(CWLinf(), clf, images, goal, mr.Linf, grid, search="linear")
    assert torch.equal(warm.min_eps, linear_search.min_eps)
    assert (warm.gradients[warm.min_eps.isfinite()] <= 8).all()


def test_no_run_ends_early_on_a_gradient_that_is_not_the_network_s_own():
    clf, images = bumpy(), grey(6, side=16)
    goal = mr.Untargeted(clf.predict(images))
    options = Options(GRID)
    assert Loop(PGD(), clf, images, goal, mr.Linf(GRID[-1]), options).ends_early
    stand_in = clf.changed(substitute=object())
    assert not Loop(PGD(), stand_in, images, goal, mr.Linf(GRID[-1]), options).ends_early


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
def test_the_most_that_a_linear_function_gains_in_a_ball(norm):
    """Nowhere in the ball is it passed, and the corner along the gradient reaches it."""
    torch.manual_seed(1)
    origin, gradient = torch.full((5, 1, 6, 6), 0.5), torch.randn(5, 1, 6, 6)
    ball = norm(0.1)
    here = ball.move(origin, origin + torch.randn_like(origin))
    most = ball.most_gain(origin, here, gradient)
    corner = origin + 0.1 * ball.ascent(gradient)
    torch.testing.assert_close(most, (gradient * (corner - here)).flatten(1).sum(1))
    for seed in range(20):
        other = ball.move(origin, origin + ball.draw(seed, "other", range(5), (1, 6, 6)) * 0.1)
        assert ((gradient * (other - here)).flatten(1).sum(1) <= most + 1e-5).all()


@pytest.mark.parametrize(("head", "classes"), [("softmax", 2), ("softmax", 5), ("logit", 2)])
def test_the_ceiling_is_never_below_the_margin_and_goes_the_way_of_the_cross_entropy(head, classes):
    torch.manual_seed(2)
    kind, labels = head_named(head), torch.arange(64) % classes
    logits = (4 * torch.randn(64, classes, dtype=torch.float64)).requires_grad_()
    for goal in (mr.Untargeted(labels), mr.Targeted(labels)):
        ceiling = goal.ceiling(kind, logits)
        assert (ceiling >= goal.margin(kind, logits) - 1e-12).all()
        (first,) = torch.autograd.grad(ceiling.sum(), logits)
        (second,) = torch.autograd.grad(goal.cross_entropy(kind, logits).sum(), logits)
        # attacks scale what is sent back to a largest entry of 1, which is the ceiling's own gradient
        torch.testing.assert_close(second / second.abs().amax(1, keepdim=True), first)


def test_attacks_that_share_what_they_learn_are_no_weaker_and_spend_less():
    clf, images = divided()
    goal = mr.Untargeted(clf.predict(images))
    attacks = [PGD(), BIM(), CWLinf(), FGSM(), DeepFool()]
    alone = [sweep(attack, clf, images, goal, mr.Linf, GRID) for attack in attacks]
    together = sweep_all(attacks, clf, images, goal, mr.Linf, GRID)
    for attack, shared, own in zip(attacks, together, alone, strict=True):
        assert shared.attack == attack.title
        outcome = mr.judge(clf, images, shared.images, goal, mr.Linf(1.0))
        broken = shared.min_eps.isfinite()
        assert outcome.reached[broken].all()
        assert (outcome.size[broken] <= shared.min_eps[broken] + 1e-6).all()
        for mine, theirs in zip(shared.accuracy, own.accuracy, strict=True):
            assert mine.value <= theirs.value + 1.01 / len(images)
    assert torch.equal(together[0].min_eps, alone[0].min_eps)
    assert sum(int(c.gradients.sum()) for c in together) < sum(int(c.gradients.sum()) for c in alone)


def test_what_another_attack_put_out_of_reach_is_not_tried():
    clf, images = linear(2), grey(20)
    goal, grid = mr.Untargeted(clf.predict(images)), [k / 2000 for k in range(1, 120)]
    first, second = sweep_all([CWLinf(), BIM()], clf, images, goal, mr.Linf, grid)
    assert torch.equal(first.min_eps, second.min_eps)
    level = torch.searchsorted(torch.tensor(grid), first.min_eps)
    assert torch.equal(first.out_of_reach[level > 0], level[level > 0] - 1)
    assert (second.gradients <= 2).all()
