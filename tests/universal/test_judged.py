"""What a universal method says it reached on the images it was made from, the judge measures on the same images."""

from __future__ import annotations

import pytest
import torch

import medrobust as mr
from medrobust.universal import UNIVERSAL, Sequential, Universal, controls, fooling_rate, judge
from medrobust.universal.method import UniversalMethod
from tests.attacks.test_judged import OneLogit
from tests.nets import bumpy, grey, linear
from tests.universal.test_contract import FEATURES


@pytest.fixture(scope="module")
def networks():
    two = bumpy(2)
    return {
        "normalised by batch": bumpy(3),  # searched on a copy with its BatchNorm folded in
        "alarmed": mr.Classifier(two.net, two.classes, threshold=0.2),
        "logit": mr.Classifier(OneLogit(two.net), two.classes, head="logit"),
    }


@pytest.fixture(scope="module")
def images():
    x = grey(18, 16, spread=0.25)
    x[0], x[1] = 0.0, 1.0
    x[2] = (x[2] > 0.5).float()
    return x


def confirmed(clf: mr.Classifier, images: torch.Tensor, v: Universal) -> None:
    outcome = judge(clf, images, v)
    reached = outcome.fooling_rate if v.target is None else outcome.targeted_success
    assert v.history[-1]["rate"] == pytest.approx(reached.value, abs=1e-6)
    assert reached.n == len(images)
    assert outcome.legal
    # by hand, from pixels
    before, after = clf.predict(images), clf.predict((images + v.delta).clamp(0, 1))
    hits = (after != before) if v.target is None else (after == v.target)
    assert reached.value == pytest.approx(float(hits.float().mean()), abs=1e-6)
    assert fooling_rate(clf, images, v).value == pytest.approx(outcome.fooling_rate.value)


@pytest.mark.parametrize(
    ("goal", "ball"), [(mr.Untargeted(), mr.Linf(8 / 255)), (mr.Targeted(1), mr.L2(0.6))], ids=["linf", "l2"]
)
@pytest.mark.parametrize("name", UNIVERSAL)
def test_what_a_method_says_it_reached_the_judge_measures(name, goal, ball, networks, images):
    goal = mr.Untargeted() if name in FEATURES else goal
    for clf in networks.values():
        method = UNIVERSAL[name]()
        for limit, value in (("passes", 2), ("queries", 30 * len(images))):
            if hasattr(method, limit):
                setattr(method, limit, value)
        confirmed(clf, images, method(clf, images, goal, ball, seed=1))


@pytest.mark.parametrize("method", [Sequential(keep="best", passes=3), Sequential(clip=False, passes=3)], ids=repr)
def test_also_where_it_gives_back_another_than_the_last_one_or_was_shown_other_pixels(method, networks, images):
    for seed in range(3):
        for clf in networks.values():
            confirmed(clf, images, method(clf, images, mr.Untargeted(), mr.Linf(8 / 255), seed=seed))
        far = 0.5 + 0.5 * torch.sign(images - 0.5)  # black and white: what is cut off matters most
        confirmed(linear(3, side=16), far, method(linear(3, side=16), far, mr.Untargeted(), mr.Linf(0.1), seed=seed))


def test_a_control_is_judged_by_the_same_rule(networks, images):
    clf = networks["normalised by batch"]
    for v in controls(clf, images, mr.Linf(8 / 255), seed=0):
        before, after = clf.predict(images), clf.predict((images + v.delta).clamp(0, 1))
        assert judge(clf, images, v).fooling_rate.value == pytest.approx(float((after != before).float().mean()))


def test_a_method_of_ones_own_that_brags_is_not_believed(images):
    """What a method writes into its history is its own word; the outcome is the judge's."""

    class Bragging(UniversalMethod):
        title, source = "Bragging", "a test"

        def find(self, task, seed):
            from medrobust.universal import PerturbationResult

            return PerturbationResult(task.zero() + 1e-6, [{"rate": 1.0}])

    clf = bumpy(3)
    v = Bragging()(clf, images, mr.Untargeted(), mr.Linf(8 / 255))
    assert judge(clf, images, v).fooling_rate.value < 0.2
