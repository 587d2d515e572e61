"""Decision-based attacks: they see decisions only, and no more of them than their budget."""

from __future__ import annotations

import pytest
import torch

import medrobust as mr
from medrobust.attacks import CGBA, HopSkipJump, RayS, decided, run
from medrobust.models import BlackBoxModel
from tests.nets import bumpy, linear

CASES = [
    pytest.param(CGBA, mr.L2(torch.inf), id="cgba"),
    pytest.param(RayS, mr.Linf(1.0), id="rays"),
    pytest.param(HopSkipJump, mr.L2(torch.inf), id="hopskipjump-l2"),
    pytest.param(HopSkipJump, mr.Linf(1.0), id="hopskipjump-linf"),
]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Only answers of this classifier"),
    pytest.mark.filterwarnings("ignore:The network gave the same outputs"),
]


def images(n=5, side=16, seed=4):
    return torch.rand(n, 1, side, side, generator=torch.Generator().manual_seed(seed))


def black_box(clf, answers):
    """``clf`` as a black box; answers: from its logits."""
    return mr.Classifier(BlackBoxModel(lambda x: answers(clf.logits(torch.from_numpy(x))), clf.classes), clf.classes)


@pytest.mark.parametrize(("kind", "ball"), CASES)
def test_scores_and_labels_give_the_same_bits(kind, ball):
    clf, x = bumpy(classes=3), images()
    goal = mr.Untargeted(clf.predict(x))
    scores = black_box(clf, lambda logits: logits.numpy())
    labels = black_box(clf, lambda logits: logits.argmax(1).numpy())
    a, b = (run(kind(60), c, x, goal, ball) for c in (scores, labels))
    for name in ("images", "reached", "queries", "no_gradient"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.reached.any()


@pytest.mark.parametrize(("kind", "ball"), CASES)
@pytest.mark.parametrize("budget", [1, 14, 53])
def test_every_row_that_is_asked_is_counted_and_the_budget_is_exact(kind, ball, budget):
    clf, x = linear(side=6), images(side=6)
    clf = black_box(clf, lambda logits: logits.argmax(1).numpy())
    goal = mr.Untargeted(clf.predict(x))
    before = clf.net.queries
    done = run(kind(budget), clf, x, goal, ball)
    assert (done.queries == budget).all()
    assert clf.net.queries - before == len(x) * (budget + 1)  # and the look at the clean image


@pytest.mark.parametrize(("kind", "ball"), CASES)
def test_a_flat_boundary_is_found(kind, ball):
    clf, x = linear(side=6), 0.3 + 0.4 * images(8, side=6)
    logits, labels = clf.logits(x), clf.predict(x)
    weight = (clf.net.weight[1] - clf.net.weight[0]).detach()
    dual = weight.norm() if ball.name == "l2" else weight.abs().sum()
    exact = (logits[:, 1] - logits[:, 0]).abs() / dual
    sizes = ball.size(run(kind(600), clf, x, mr.Untargeted(labels), ball).images - x)
    assert (sizes >= exact * (1 - 1e-4)).all()
    slack = 1.1 if kind is CGBA else 1.4
    assert (sizes / exact).median() < slack


@pytest.mark.parametrize(("kind", "ball"), CASES)
def test_a_target_is_reached_from_a_known_image_of_it(kind, ball):
    clf, x = bumpy(classes=3), images()
    known = images(30, seed=7)
    answers = clf.logits(known)
    target = int(answers.argmax(1).mode().values)
    attack = kind(80).starting_from(known, answers)
    done = run(attack, clf, x, mr.Targeted(target), ball)
    assert (clf.predict(done.images) == target).all()
    start = torch.cdist(x.flatten(1), known[answers.argmax(1) == target].flatten(1)).amin(1)
    if ball.name == "l2":
        assert (ball.size(done.images - x)[~done.clean] < start[~done.clean]).all()


@pytest.mark.parametrize(("kind", "ball"), CASES)
def test_an_image_without_a_start_is_counted_and_ends(kind, ball):
    clf, x = black_box(linear(side=6), lambda logits: [0] * len(logits)), images(side=6)
    done = run(kind(500), clf, x, mr.Untargeted(torch.zeros(5, dtype=torch.long)), ball)
    assert not done.reached.any()
    assert done.no_gradient.all()
    assert (done.queries == 13).all()


@pytest.mark.parametrize(("kind", "ball"), CASES)
def test_a_random_classifier_ends_without_nan(kind, ball):
    draws = torch.Generator().manual_seed(0)
    clf = black_box(linear(side=6), lambda logits: torch.randint(0, 2, (len(logits),), generator=draws).numpy())
    with pytest.warns(UserWarning, match="random"):
        done = run(kind(200), clf, images(side=6), mr.Untargeted(torch.zeros(5, dtype=torch.long)), ball)
    assert torch.isfinite(done.images).all()


def test_distances_fall_with_queries_and_end_at_the_result():
    clf, x = bumpy(classes=3), images()
    goal = mr.Untargeted(clf.predict(x))
    whole, part = decided(CGBA(90), clf, x, goal, mr.L2, (40, 90)), decided(CGBA(40), clf, x, goal, mr.L2, (40,))
    assert torch.equal(whole.sizes[:, 0], part.sizes[:, 0])
    assert (whole.sizes[:, 1] <= whole.sizes[:, 0]).all()
    assert torch.allclose(whole.sizes[:, 1], mr.L2(torch.inf).size(whole.images - x), atol=1e-6)
    assert whole.median(90).value == pytest.approx(float(whole.sizes[:, 1].median()))


def test_the_norm_must_be_the_attack_s():
    clf, x = linear(side=6), images(side=6)
    goal = mr.Untargeted(clf.predict(x))
    for attack, ball, other in ((CGBA(), mr.Linf(0.1), "rays"), (RayS(), mr.L2(1.0), "cgba")):
        with pytest.raises(mr.InputError, match=other):
            attack(clf, x, goal, ball)
