"""Evasions against what is known in closed form, and the grader against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.detectors import DETECTORS, Detector, Features, KernelDensity, Mahalanobis
from medrobust.detectors.rule import Rule, Sum
from medrobust.evasion import EVASIONS, combine, judge, run, smallest, surrogate
from medrobust.evasion.selective import orthogonal
from tests.nets import bumpy, grey

SIDE = 6


def linear(classes=2, seed=0):
    """A linear classifier whose penultimate features are its pixels."""
    g = torch.Generator().manual_seed(seed)
    layer = nn.Linear(SIDE * SIDE, classes)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(classes, SIDE * SIDE, generator=g))
        layer.bias.copy_(-layer.weight.sum(1) / 2)
    return mr.Classifier(nn.Sequential(nn.Flatten(), layer), [f"c{i}" for i in range(classes)], channels=1)


class Deaf(Rule):
    """The same for every image."""

    name = "deaf"

    def fit(self, numbers, attacked, *, seed, scale_on=None):
        pass

    def decide(self, numbers):
        return 0 * numbers.sum(1) + 1


class Constant(Detector):
    title, source, needs_attacks = "Constant", "a test", False

    def represent(self, table, predicted):
        return table[self.layer].double()

    def make_rule(self, supervised):
        return Deaf()


@pytest.fixture(scope="module")
def flat():
    """A linear classifier and images it puts on either side of its boundary, a little away from it."""
    clf = linear()
    images = grey(40, SIDE)
    return clf, images, clf.predict(images)


@pytest.mark.parametrize("name", ["selective", "orthogonal", "penalised", "matching"])
def test_the_lowest_score_on_a_linear_classifier_is_the_closed_form(flat, name):
    """Density under one point a class falls with the squared distance from it: in a box the best is the point, clipped.

    Where that image is on the wrong side, no legal image that fools has a lower score.
    """
    clf, images, labels = flat
    points = torch.stack([images[labels == c].mean(0) for c in (0, 1)])
    detector = KernelDensity().fit(clf, images, reference=points, labels=torch.tensor([0, 1]))
    ball = mr.Linf(0.1)
    wrong = points[1 - labels]
    optimum = (images + ball.project(wrong - images)).clamp(0, 1)
    mine = clf.predict(optimum) != labels
    assert mine.float().mean() > 0.5
    best, clean = detector.score(optimum), detector.score(images)
    made = EVASIONS[name]()
    made.steps = 80
    found = run(made, clf, detector, images[mine], mr.Untargeted(labels[mine]), ball, -torch.inf, reference=images)
    assert bool(found.fooled.all())
    assert bool((found.score >= best[mine] - 1e-6).all())
    if name != "matching":  # that one looks for an image, not for the lowest score
        spread = float((clean[mine] - best[mine]).abs().mean())
        assert float((found.score - best[mine]).mean()) < 0.05 * spread


def test_a_mahalanobis_detector_on_a_linear_classifier_is_met_at_its_mean(flat):
    """Inside a large ball the least suspicious image of the wrong class is that class's mean: distance 0."""
    clf, images, labels = flat
    detector = Mahalanobis(layers=("penultimate",)).fit(clf, images[:20], reference=images, labels=labels)
    means = torch.stack([images[labels == c].mean(0) for c in (0, 1)])
    lowest = detector.score(means).min()
    found = run(
        mr.evasion.SelectivePGD(steps=150),
        clf,
        detector,
        images[:8],
        mr.Untargeted(labels[:8]),
        mr.Linf(0.3),
        -torch.inf,
    )
    assert bool(found.fooled.all())
    clean = detector.score(images[:8])
    assert float((found.score - lowest).max()) < 0.1 * float((clean - lowest).mean())


def test_without_a_detector_in_the_way_the_smallest_eps_is_the_closed_form(flat):
    """A threshold above every score: eps* is the margin over the l1 norm of the weights, rounded up to the grid."""
    clf, images, labels = flat
    detector = KernelDensity().fit(clf, images, reference=images, labels=labels)
    logits, weight = clf.logits(images), clf.net[1].weight.detach()
    gap = (logits[:, 0] - logits[:, 1]).abs()
    exact = (gap / (weight[0] - weight[1]).abs().sum()).numpy()
    grid = np.array([0.002, 0.005, 0.01, 0.02, 0.05, 0.1])
    few = {"selective": EVASIONS["selective"]}
    balls = [mr.Linf(e) for e in grid]
    needed = smallest(clf, detector, images, mr.Untargeted(labels), balls, float("inf"), evasions=few)
    wanted = np.array([grid[grid >= e][0] if (grid >= e).any() else np.inf for e in exact])
    away = np.abs(grid[None] / exact[:, None] - 1).min(1) > 0.05  # a grid point right at the optimum may go either way
    assert away.mean() > 0.5
    assert np.array_equal(needed.eps[away], wanted[away])
    shares = [needed.share(e).value for e in grid]
    assert shares == sorted(shares)
    with pytest.raises(mr.InputError, match="ascending"):
        smallest(clf, detector, images, mr.Untargeted(labels), balls[::-1], 0.0)


def test_orthogonal_is_orthogonal():
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 5, 3, 4, 4, generator=g)
    rest = orthogonal(a, b)
    products = (rest * b).flatten(1).sum(1) / (rest.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1))
    assert float(products.abs().max()) < 1e-6
    assert torch.allclose(orthogonal(rest, b), rest, atol=1e-6)
    assert torch.equal(orthogonal(2 * b, b), 2 * b)  # nothing would be left
    assert torch.equal(orthogonal(a, torch.zeros_like(b)), a)


@pytest.fixture(scope="module")
def learned():
    """Every detector on a small convolutional network's features, and features of further images, some attacked."""
    clf = bumpy()
    features = Features(clf, ("penultimate", "body.3"))
    clean, more = grey(120, 16, spread=0.2), grey(40, 16, spread=0.2, seed=5)

    def attacked(images):
        return mr.attacks.PGD(steps=10)(clf, images, mr.Untargeted(clf.predict(images)), mr.Linf(12 / 255), full=True)

    far = features(attacked(clean))
    made = {n: make().fit(features, features(clean), far) for n, make in DETECTORS.items()}
    return made, features(torch.cat([more, attacked(more)]))


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_a_surrogate_orders_images_as_the_real_detector_does(learned, name):
    from scipy.stats import spearmanr

    detector, table = learned[0][name], learned[1]
    predicted = table["logits"].argmax(1)
    leaves = {k: v.double().requires_grad_() for k, v in table.items()}
    soft = surrogate(detector)(leaves, predicted)
    real = detector.score_features(table)
    if name in ("kd", "kd-likelihood", "lid", "mahalanobis", "softmax"):
        assert torch.allclose(soft.detach(), real, rtol=1e-6, atol=1e-6)
    elif name != "qfeat":  # at the published gamma the real machine gives every new image the same score
        assert spearmanr(soft.detach(), real).statistic > 0.8
    gradients = torch.autograd.grad(soft.sum(), list(leaves.values()), allow_unused=True)
    moved = sum((g.abs().sum(1) for g in gradients if g is not None), torch.zeros(len(real)))
    assert bool((moved > 0).all())
    assert bool(torch.isfinite(moved).all())


def test_a_step_down_the_surrogate_of_a_forest_lowers_its_votes(learned):
    detector, table = learned[0]["dfeat"], learned[1]
    x = table["penultimate"].double()
    before, predicted = detector.score_features(table), table["logits"].argmax(1)
    for _ in range(30):
        leaf = x.clone().requires_grad_()
        surrogate(detector)({**table, "penultimate": leaf}, predicted).sum().backward()
        x = x - 0.02 * x.abs().mean() * leaf.grad.sign()
    after = detector.score_features({**table, "penultimate": x.float()}, predicted)
    assert float(after.mean()) < float(before.mean()) - 0.2


def test_a_detector_that_always_sounds_is_not_evaded(flat):
    clf, images, labels = flat
    detector = Constant().fit(clf, images)
    ball, goal = mr.Linf(0.1), mr.Untargeted(labels)
    found = run(mr.evasion.OrthogonalPGD(steps=10), clf, detector, images, goal, ball, 0.0)
    told = judge(clf, detector, images, found.images, goal, ball, {0.05: 0.0})
    assert told.fooled.value == 1.0
    assert told.success(0.05).value == 0.0
    assert told.detected(0.05).value == 1.0
    assert told.auroc.value == 0.5
    assert told.success(0.05).high < 0.15


def test_the_grader_agrees_with_a_count_by_hand(flat):
    clf, images, labels = flat
    detector = Mahalanobis(layers=("penultimate",)).fit(clf, images[:20], reference=images[20:])
    goal, ball = mr.Untargeted(labels), mr.Linf(0.05)
    plain = mr.attacks.PGD(steps=10)(clf, images, goal, ball, full=True)
    adversarial = plain.clone()
    adversarial[:5] = images[:5]  # not fooled
    adversarial[5] += 0.2  # not legal
    goal = mr.Untargeted(torch.cat([labels[:-1], 1 - labels[-1:]]))  # the last is wrong before
    thresholds = {0.05: detector.threshold_at(detector.score(images), 0.05), 0.5: float(detector.score(plain).median())}
    told = judge(clf, detector, images, adversarial, goal, ball, thresholds, plain=plain, groups=np.arange(40) // 2)
    fooled = (clf.predict(adversarial) != goal.labels) & (torch.arange(40) > 5)
    score = detector.score(adversarial.clamp(0, 1))
    mine = torch.arange(40) < 39
    for fpr, threshold in thresholds.items():
        alarm = score > threshold
        assert told.success(fpr).value == pytest.approx(float((fooled & ~alarm)[mine].float().mean()))
        assert told.detected(fpr).value == pytest.approx(float(alarm[fooled & mine].float().mean()))
        assert told.success(fpr).n == 39
    assert told.fooled.value == pytest.approx(float(fooled[mine].float().mean()))
    pairs = score[fooled & mine][:, None] - detector.score(images)[mine][None]
    by_hand = float((pairs > 0).double().mean() + 0.5 * (pairs == 0).double().mean())
    assert told.auroc.value == pytest.approx(by_hand)
    assert told.plain_detected(0.5).n == 39
    twice = combine([told, told])
    assert twice.success(0.05).value == pytest.approx(told.success(0.05).value)
    assert twice.auroc.value == pytest.approx(told.auroc.value)
    with pytest.raises(mr.InputError, match="no threshold"):
        judge(clf, detector, images, adversarial, goal, ball, {})
    with pytest.raises(mr.InputError, match="40 images have 2 groups"):
        judge(clf, detector, images, adversarial, goal, ball, thresholds, groups=[1, 2])
    with pytest.raises(mr.InputError, match="no outcomes"):
        combine([])


def test_more_steps_and_larger_eps_do_not_do_worse(learned):
    """Scores at full strength, each from nothing, on a network that is not linear."""
    detector, clf, images = learned[0]["kd"], bumpy(), grey(12, 16, spread=0.2, seed=6)
    goal = mr.Untargeted(clf.predict(images))

    def reached(steps, eps):
        found = run(mr.evasion.SelectivePGD(steps=steps), clf, detector, images, goal, mr.Linf(eps), 0.0, full=True)
        return float(found.fooled.float().mean()), float(found.score[found.fooled].mean())

    few, many, wide = reached(5, 8 / 255), reached(60, 8 / 255), reached(60, 24 / 255)
    assert few[0] <= many[0] <= wide[0] == 1.0
    assert wide[1] < many[1] < few[1]


def test_a_linear_surrogate_rule_is_left_as_it_is(flat):
    """Sum is a plain rule: the surrogate's slope is the detector's own."""
    clf, images, labels = flat
    detector = KernelDensity().fit(clf, images, reference=images, labels=labels)
    assert isinstance(detector.rule_, Sum)
    table = Features(clf)(images)
    leaf = table["penultimate"].double().requires_grad_()
    predicted = table["logits"].argmax(1)
    both = [f({**table, "penultimate": leaf}, predicted).sum() for f in (surrogate(detector), detector.suspicion)]
    mine, its = (torch.autograd.grad(v, leaf)[0] for v in both)
    assert torch.equal(mine, its)
