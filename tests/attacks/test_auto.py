"""The ensemble: the worst of its members, exact where the answer is known, inconclusive where gradients are hidden."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.attacks import APGD, FGSM, FMN, PGD, Auto, run, sweep
from medrobust.threat import margin
from tests.attacks.test_linear import closed_form
from tests.nets import bumpy, grey, linear

SHORT = Auto(steps=15, queries=60)


class Rounded(nn.Module):
    """Sees its input in coarse steps: no gradient at all, as defences that only look robust."""

    def __init__(self, inner, steps=8):
        super().__init__()
        self.inner, self.steps = inner, steps

    def forward(self, x):
        return self.inner((x * self.steps).round() / self.steps)


@pytest.fixture(scope="module")
def images():
    return torch.rand(11, 1, 16, 16, generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
@pytest.mark.parametrize(("head", "classes"), [("softmax", 2), ("softmax", 5), ("logit", 2), ("multilabel", 3)])
def test_on_a_linear_model_auto_breaks_exactly_what_can_be_broken(head, classes, norm):
    """From one logit and two classes up, and as a set of findings."""
    clf, images = linear(classes, head=head), grey(12)
    labels = clf.predict(images)
    if head == "multilabel":
        weight = clf.net.weight.detach()
        dual = weight.abs().sum(1) if norm is mr.Linf else weight.norm(dim=1)
        truth = (clf.logits(images).abs() / dual).amin(1)
    else:
        truth = closed_form(clf, images, labels, norm, targeted=False)
    eps = float(truth.median()) * 1.0005
    done = run(SHORT, clf, images, mr.Untargeted(labels), norm(eps))
    within = truth <= eps
    assert done.reached[within & (truth < 0.98 * eps)].all()
    assert not done.reached[~within].any()
    assert torch.equal(done.by >= 0, done.reached)
    assert not done.no_gradient.any()
    grid = [eps * (0.8 + 0.02 * k) for k in range(20)]
    curve = sweep(SHORT, clf, images, mr.Untargeted(labels), norm, grid)
    reach = torch.isfinite(curve.min_eps) & (truth > grid[0])
    assert (curve.min_eps[reach] / truth[reach]).min() > 0.999
    assert (curve.min_eps[reach] / truth[reach]).max() < 1.04
    assert torch.isfinite(curve.min_eps[truth < 0.98 * grid[-1]]).all()


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
@pytest.mark.parametrize("head", ["softmax", "logit"])
def test_targeted_auto_on_a_linear_model(head, norm):
    clf, images = linear(2, head=head), grey(30)
    images = images[clf.predict(images) == 0]
    truth = closed_form(clf, images, torch.ones(len(images), dtype=torch.long), norm, targeted=True)
    eps = float(truth.median()) * 1.0005
    done = run(SHORT, clf, images, mr.Targeted(1), norm(eps))
    assert done.reached[truth < 0.98 * eps].all()
    assert not done.reached[truth > eps].any()


def test_each_member_works_only_on_what_the_members_before_left(images):
    clf = bumpy(classes=3)
    goal, ball = mr.Untargeted(clf.predict(images)), mr.Linf(0.015)
    done = run(SHORT, clf, images, goal, ball, seed=2)
    first = run(APGD(15), clf, images, goal, ball, seed=2)
    assert first.reached.any()
    assert not first.reached.all()
    assert torch.equal(done.by == 0, first.reached)
    assert torch.equal(done.images[first.reached], first.images[first.reached])
    assert torch.equal(done.gradients[first.reached], first.gradients[first.reached])
    left = ~first.reached
    second = run(
        APGD(15, loss=margin),
        clf,
        images[left],
        mr.Untargeted(clf.predict(images)[left]),
        ball,
        seed=2,
        ids=left.nonzero()[:, 0].tolist(),
    )
    assert torch.equal(done.by[left] == 1, second.reached)
    held = ~done.reached
    assert (done.queries[held] >= 60 + 15 * 3).all()
    assert (done.gradients[held] >= 15 * 3).all()


def test_auto_is_never_weaker_than_its_members_and_says_which_one_it_was(images):
    clf = bumpy(classes=3)
    goal = mr.Untargeted(clf.predict(images))
    for norm, eps in ((mr.Linf, 0.01), (mr.L2, 0.15)):
        done = run(SHORT, clf, images, goal, norm(eps))
        alone = torch.stack(
            [
                mr.judge(clf, images, a(clf, images, goal, norm(eps)), goal, norm(eps)).reached
                for a in (SHORT.attacks[name] for name in SHORT.members)
            ]
        )
        assert torch.equal(done.reached, alone.any(0))
        judged = mr.judge(clf, images, done.images, goal, norm(eps))
        assert torch.equal(judged.reached, done.reached)
        broken = done.reached.nonzero()[:, 0]
        assert alone[done.by[broken], broken].all()


def test_a_sweep_takes_the_smallest_eps_of_all_members(images):
    clf = bumpy(classes=3)
    goal, grid = mr.Untargeted(clf.predict(images)), [k / 255 for k in (0.5, 1, 2, 3, 4, 8, 16)]
    curve = sweep(SHORT, clf, images, goal, mr.Linf, grid)
    assert torch.isfinite(curve.min_eps).any()
    size = mr.Linf(1.0).size(curve.images - images)
    broken = torch.isfinite(curve.min_eps)
    assert (size[broken] <= curve.min_eps[broken] + 1e-6).all()
    assert (clf.predict(curve.images)[broken] != goal.labels[broken]).all()
    others = torch.stack([sweep(a, clf, images, goal, mr.Linf, grid).min_eps for a in (FGSM(), PGD(), FMN(15))])
    levels = torch.searchsorted(torch.tensor(grid), torch.cat([curve.min_eps[None], others.amin(0)[None]]))
    assert (levels[0] <= levels[1]).all()
    assert curve.by is not None
    assert torch.equal(curve.by >= 0, broken)


def test_full_returns_the_largest_margin_of_the_members(images):
    clf = bumpy(classes=3)
    goal, ball = mr.Untargeted(clf.predict(images)), mr.Linf(0.03)
    strong = run(SHORT, clf, images, goal, ball, full=True)
    reach = goal.margin(clf.head, clf.logits(strong.images))
    for loss in (None, margin):
        member = APGD(15) if loss is None else APGD(15, loss=loss)
        alone = run(member, clf, images, goal, ball, full=True)
        assert (reach >= goal.margin(clf.head, clf.logits(alone.images)) - 1e-4).all()


def test_zero_gradients_are_inconclusive_unless_square_breaks_the_image(images):
    inner = bumpy(classes=3)
    clf = mr.Classifier(Rounded(inner.net), inner.classes)
    goal = mr.Untargeted(clf.predict(images))
    tiny = run(SHORT, clf, images, goal, mr.Linf(0.002))
    large = run(SHORT, clf, images, goal, mr.Linf(0.2))
    square = Auto.members.index("square")
    assert (large.by == square).any()  # besides what the random starts of the others happen upon
    for done in (tiny, large):
        assert torch.equal(done.no_gradient, ~done.reached)
    assert tiny.no_gradient.any()
    curve = sweep(SHORT, clf, images, goal, mr.Linf, [0.002, 0.2])
    assert torch.equal(curve.inconclusive, torch.isinf(curve.min_eps))


def test_what_was_wrong_before_is_left_alone(images):
    clf = bumpy(classes=3)
    wrong = mr.Untargeted((clf.predict(images) + 1) % 3)
    done = run(SHORT, clf, images, wrong, mr.Linf(0.01))
    assert done.clean.all()
    assert done.reached.all()
    assert torch.equal(done.images, images)
    assert (done.by == -1).all()
    assert int(done.gradients.sum()) == int(done.queries.sum()) == 0


def test_its_steps_can_not_be_taken_one_by_one(images):
    with pytest.raises(mr.InputError, match="made of other attacks"):
        Auto().start(None)


@pytest.mark.parametrize("head", ["softmax", "logit"])
def test_with_two_classes_both_losses_make_the_same_steps_so_that_one_is_left_out(head):
    clf, images = linear(2, head=head), grey(8)
    goal, ball = mr.Untargeted(clf.predict(images)), mr.Linf(1e-4)
    both = [run(APGD(12, loss=loss), clf, images, goal, ball).images for loss in (mr.threat.cross_entropy, margin)]
    assert (both[0] - both[1]).abs().max() < 1e-6
    held = run(Auto(steps=12, queries=5), clf, images, goal, ball)
    assert (held.gradients == 2 * 12).all()


class Still(FGSM):
    def step(self, images, output, batch, state):
        return images


class Distant(FMN):
    """Steps a twentieth farther than the boundary of a linear network."""

    def step(self, images, output, batch, state):
        length = 1.05 * output.margin.abs() / batch.ball.dual_norm(output.gradient)
        return batch.origin + length.view(-1, 1, 1, 1) * batch.ball.ascent(output.gradient)


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
def test_where_the_smallest_change_just_misses_the_ball_another_search_follows(norm):
    clf, images = linear(2), grey(12)
    labels = clf.predict(images)
    truth = closed_form(clf, images, labels, norm, targeted=False)
    one, goal = truth.argsort()[5:6], mr.Untargeted(labels)
    ball = norm(1.02 * float(truth[one]))
    alone = Auto(steps=60, queries=2)
    alone.attacks["apgd"] = Still()
    alone.attacks["fmn"] = Distant(1)
    done = run(alone, clf, images[one], goal.take(one), ball)
    assert done.reached.item()
    assert done.by.item() == 2
    alone._closer = {}
    assert not run(alone, clf, images[one], goal.take(one), ball).reached.item()


class Hidden(nn.Module):
    """The best other class is far away; one with a smaller logit is near, and no step towards the best leads there."""

    def forward(self, x):
        left, right = x[..., :8].flatten(1).sum(1) - 64, x[..., 8:].flatten(1).sum(1) - 64
        return torch.stack([torch.zeros_like(left), 0.05 * left - 1, right - 4], 1)


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
def test_auto_looks_towards_the_nearest_boundary_not_only_towards_the_best_logit(norm):
    clf = mr.Classifier(Hidden(), list("abc"), channels=1, outputs="logits")
    images, goal = torch.full((1, 1, 16, 16), 0.5), mr.Untargeted(torch.tensor([0]))
    nearest = 4 / 128 if norm is mr.Linf else 4 / 128**0.5
    assert not run(FMN(30), clf, images, goal, norm(1.02 * nearest)).reached.item()
    found = run(SHORT, clf, images, goal, norm(1.02 * nearest))
    assert found.reached.item()
    assert clf.predict(found.images).item() == 2
    curve = sweep(SHORT, clf, images, goal, norm, [nearest * k for k in (0.9, 0.98, 1.02, 1.1, 3, 9)])
    assert curve.min_eps.item() == pytest.approx(1.02 * nearest)
