"""On a linear model the smallest perturbation is known: margin / dual norm of the weight difference."""

from __future__ import annotations

import math

import pytest
import torch

import medrobust as mr
from medrobust.attacks import APGD, BIM, CWL2, EAD, FAB, FGSM, FMN, MIFGSM, PGD, CWLinf, DeepFool, SigmaZero, sweep
from medrobust.threat import L0, L1, margin
from tests.nets import grey, linear

HEADS = [("softmax", 2), ("softmax", 3), ("softmax", 5), ("logit", 2)]


def closed_form(clf, images, goal_labels, norm, targeted):
    """Distance to the nearest boundary that reaches the goal, from the weights alone."""
    net = clf.net
    raw = net(images).detach()
    weight = net.weight.detach()
    if clf.head.name == "logit":
        weight, raw = torch.cat([-weight / 2, weight / 2]), torch.cat([-raw / 2, raw / 2], 1)
    k, distances = weight.shape[0], []
    for x, row, y in zip(images, raw, goal_labels.tolist(), strict=True):
        to = []
        for j in range(k):
            if j == y:
                continue
            w = weight[j] - weight[y]
            if norm in (L1, L0):
                to.append(few(w, torch.where(w > 0, 1 - x.flatten(), x.flatten()), float(row[y] - row[j]), norm))
                continue
            dual = w.abs().sum() if norm is mr.Linf else w.norm()
            to.append(float((row[y] - row[j]) / dual))
        # untargeted: the nearest of the others. Targeted to y is closed-form with one boundary only (2 classes)
        distances.append(min(to) if not targeted else max(-d for d in to))
    return torch.tensor(distances)


def few(w, room, gap, norm):
    """Values that move as far as [0, 1] lets them, in the order of what each gains: in all, or a unit of change.

    Without the box it is gap / max |w| in L1.
    """
    gains = sorted(zip((w.abs() * room).tolist(), w.abs().tolist(), strict=True), key=lambda g: -g[norm is L1])
    size = 0.0
    for gain, slope in gains:
        if gain >= gap:
            return size + (1 if norm is L0 else gap / slope)
        gap, size = gap - gain, size + (1 if norm is L0 else gain / slope)
    return math.inf


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
@pytest.mark.parametrize(("head", "classes"), HEADS)
@pytest.mark.parametrize("attack", [DeepFool(), FMN(), FAB()], ids=repr)
def test_minimal_attacks_meet_the_closed_form(attack, head, classes, norm):
    check_minimal(attack, linear(classes, head=head), norm)


@pytest.mark.parametrize(("head", "classes"), HEADS)
def test_cw_l2_meets_the_closed_form(head, classes):
    check_minimal(CWL2(), linear(classes, head=head), mr.L2)


@pytest.mark.parametrize(("head", "classes"), HEADS)
@pytest.mark.parametrize(("attack", "norm"), [(FAB(), L1), (EAD(), L1), (SigmaZero(), L0)], ids=repr)
def test_attacks_on_few_values_meet_the_closed_form(attack, norm, head, classes):
    check_minimal(attack, linear(classes, head=head), norm)


def test_the_closed_form_in_l1_is_the_margin_over_the_largest_weight():
    clf, images = linear(2), grey(1)
    weight, (raw,) = clf.net.weight.detach(), clf.logits(images)
    y = int(raw.argmax())
    gap, w = float(raw[y] - raw[1 - y]), weight[1 - y] - weight[y]
    assert few(w, torch.full_like(w, 10.0), gap, L1) == pytest.approx(gap / float(w.abs().max()))


def check_minimal(attack, clf, norm):
    images = grey(12)
    labels = clf.predict(images)
    truth = closed_form(clf, images, labels, norm, targeted=False)
    found = attack(clf, images, mr.Untargeted(labels), norm(1.0 if norm is mr.Linf else 36.0))
    size = norm(0.0).size(found - images)
    assert (clf.predict(found) != labels).all()
    assert (size / truth).max() < 1.05
    assert (size / truth).min() > 0.999


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
@pytest.mark.parametrize("head", ["softmax", "logit"])
@pytest.mark.parametrize("attack", [DeepFool(), FMN()], ids=repr)
def test_minimal_targeted_attacks_meet_the_closed_form(attack, head, norm):
    clf, images = linear(2, head=head), grey(30)
    images = images[clf.predict(images) == 0]
    truth = closed_form(clf, images, torch.ones(len(images), dtype=torch.long), norm, targeted=True)
    found = attack(clf, images, mr.Targeted(1), norm(1.0 if norm is mr.Linf else 10.0))
    ratio = norm(0.0).size(found - images) / truth
    assert (clf.predict(found) == 1).all()
    assert ratio.max() < 1.05
    assert ratio.min() > 0.999


@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
@pytest.mark.parametrize(("head", "targeted"), [("softmax", False), ("logit", True)])
@pytest.mark.parametrize(
    "attack", [FGSM(), BIM(), MIFGSM(), PGD(), CWLinf(), APGD(steps=20), APGD(steps=20, loss=margin)], ids=repr
)
def test_a_sweep_finds_the_closed_form_distance(attack, head, norm, targeted):
    # two classes: with more, ascending one loss need not lead to the nearest of several boundaries
    clf, images = linear(2, head=head), grey(12)
    labels = clf.predict(images)
    if targeted:
        images = images[labels == 0]
        goal, truth_labels = mr.Targeted(1), torch.ones(len(images), dtype=torch.long)
    else:
        goal, truth_labels = mr.Untargeted(labels), labels
    truth = closed_form(clf, images, truth_labels, norm, targeted)
    grid = [float(truth.min()) * 0.9 * 1.02**i for i in range(300)]
    grid = [e for e in grid if e <= max(1.2 * float(truth.max()), grid[0])]
    curve = sweep(attack, clf, images, goal, norm, grid)
    assert (curve.min_eps / truth).max() < 1.05
    assert (curve.min_eps / truth).min() > 0.999
    # accuracy falls from 1 to 0 along such a grid, and never rises
    values = [a.value for a in curve.accuracy]
    assert values[0] == 1.0
    assert values[-1] == 0.0
    assert values == sorted(values, reverse=True)


def test_every_search_agrees_where_success_is_monotone_and_the_clever_ones_cost_less():
    clf, images = linear(2), grey(20)
    goal = mr.Untargeted(clf.predict(images))
    grid = [i / 1000 for i in range(1, 40)]
    upward, bisect, shrink = (
        sweep(BIM(), clf, images, goal, mr.Linf, grid, search=s) for s in ("linear", "bisect", "shrink")
    )
    hinted = sweep(BIM(), clf, images, goal, mr.Linf, grid, near=bisect.min_eps + 0.004)
    for other in (bisect, shrink, hinted):
        assert torch.equal(upward.min_eps, other.min_eps)
    costs = [int(c.gradients.sum()) for c in (upward, bisect, shrink)]
    assert costs == sorted(costs, reverse=True)
    assert int(hinted.gradients.sum()) < costs[1]


def test_confident_models_are_not_taken_for_robust():
    """At hundreds of logits p rounds to 1 and the plain cross-entropy's gradient to 0: peers report that as robust."""
    clf, images = linear(2, scale=2000.0), grey(12)
    labels = clf.predict(images)
    assert clf.probabilities(images).max(1).values.median() == 1.0
    curve = sweep(PGD(), clf, images, mr.Untargeted(labels), mr.Linf, [0.3])
    assert curve.accuracy[0].value == 0.0
    assert not curve.inconclusive.any()


def test_an_infinite_ball_is_allowed_for_minimal_attacks():
    clf, images = linear(2), grey(4)
    labels = clf.predict(images)
    found = FMN()(clf, images, mr.Untargeted(labels), mr.L2(math.inf))
    assert (clf.predict(found) != labels).all()


class Bowl(torch.nn.Module):
    """Class 1 inside an ellipsoid round a point that is ``away`` from grey: steep where almost nothing is to change."""

    def __init__(self, radius):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.radius, self.away, self.weight = radius, torch.full((1, 8, 8), 0.1), torch.ones(1, 8, 8)
        self.away[..., :7] = 0.02 * torch.randn(1, 8, 7, generator=generator)
        self.weight[..., :7] = 4.0

    def outside(self, changed):
        return (self.weight * (changed - self.away) ** 2).flatten(1).sum(1) - self.radius**2

    def forward(self, x):
        outside = 10 * self.outside(x - 0.5)
        return torch.stack([outside, -outside], 1)

    def smallest(self):
        """Linf: each pixel goes as far as it wants to, at most so far; by halving."""
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            inside = bool(self.outside(self.away.clamp(-middle, middle)[None]) <= 0)
            low, high = (low, middle) if inside else (middle, high)
        return high


@pytest.mark.parametrize("steps", [30, 100])
@pytest.mark.parametrize("radius", [0.02, 0.05, 0.1])
def test_long_steps_across_a_curved_boundary_do_not_drive_fmn_away(radius, steps):
    clf = mr.Classifier(Bowl(radius), ["out", "in"], channels=1, outputs="logits")
    images = torch.full((1, 1, 8, 8), 0.5)
    found = FMN(steps)(clf, images, mr.Untargeted(torch.tensor([0])), mr.Linf(math.inf))
    assert clf.predict(found).item() == 1
    assert float(mr.Linf(1.0).size(found - images)) <= 1.01 * clf.net.smallest()
