"""What every evasion promises, whatever it is and whatever detector it meets."""

from __future__ import annotations

import copy

import pytest
import torch

import medrobust as mr
from medrobust.detectors import DETECTORS, Features
from medrobust.detectors.features import rows as pick
from medrobust.evasion import EVASIONS, run, strongest
from tests.nets import bumpy, grey

BALL = mr.Linf(12 / 255)
LAYERS = ("penultimate", "body.3")


@pytest.fixture(scope="module")
def world():
    """A classifier, its features of clean images and of their attacked twins, and images that nobody has seen."""
    clf = bumpy()
    clean = grey(120, 16, spread=0.2)
    features = Features(clf, LAYERS)
    table = features(clean)
    labels = table["logits"].argmax(1)
    twins = mr.attacks.PGD(steps=10)(clf, clean, mr.Untargeted(labels), BALL, full=True)
    return clf, table, features(twins), features(grey(60, 16, spread=0.2, seed=2)), grey(12, 16, spread=0.2, seed=3)


def fitted(name, world):
    clean, twins = (pick(t, torch.arange(60)) for t in world[1:3])
    detector = DETECTORS[name]().fit(
        Features(world[0], LAYERS), clean, twins, reference=pick(world[1], torch.arange(60, 120))
    )
    return detector, detector.threshold_at(detector.score_features(world[3]), 0.05)


@pytest.fixture(scope="module", params=sorted(EVASIONS))
def evasion(request):
    made = EVASIONS[request.param]()
    made.steps = 10
    return made


@pytest.mark.parametrize("name", ["kd", "lid", "dfeat", "qfeat-scale", "mahalanobis"])
def test_results_are_legal_and_the_same_to_the_bit_alone_and_in_any_batch_and_order(evasion, name, world):
    clf, reference, images = world[0], world[1], world[4][:8]
    detector, threshold = fitted(name, world)
    labels = clf.predict(images)
    ids = [f"image {i}" for i in range(len(images))]
    evasion = copy.copy(evasion)
    evasion.steps = 5

    def evade(index, ball=BALL):
        chosen = torch.tensor(index)
        return evasion(
            clf,
            detector,
            images[chosen],
            mr.Untargeted(labels[chosen]),
            ball,
            threshold,
            seed=3,
            ids=[ids[i] for i in index],
            reference=reference,
        )

    whole = evade(range(8))
    assert whole.shape == images.shape
    assert bool(BALL.legal(images, whole).all())
    assert not torch.equal(whole, images)
    assert torch.equal(evade([7]), whole[7:8])
    assert torch.equal(evade([6, 2, 5, 0]), whole[[6, 2, 5, 0]])
    small = mr.L2(0.4)
    assert bool(small.legal(images[:4], evade(range(4), small)).all())


def test_what_it_claims_is_what_classifier_and_detector_say(evasion, world):
    clf, reference, images = world[0], world[1], world[4]
    detector, threshold = fitted("mahalanobis", world)
    labels = clf.predict(images)
    found = run(evasion, clf, detector, images, mr.Untargeted(labels), BALL, threshold, reference=reference)
    assert torch.equal(found.fooled, clf.predict(found.images) != labels)
    assert torch.allclose(found.score, detector.score(found.images), rtol=1e-9)
    assert bool((found.steps <= evasion.steps).all())


def test_class_0_is_a_target_like_any_other(evasion, world):
    clf, reference, images = world[0], world[1], world[4]
    detector, threshold = fitted("kd", world)
    for target in range(3):
        made = evasion(clf, detector, images, mr.Targeted(target), mr.Linf(0.2), threshold, reference=reference)
        assert (clf.predict(made) == target).float().mean() >= 0.9


def test_the_classifier_is_left_as_it_was(evasion, world):
    clf = bumpy(seed=1)
    clf.net.train()
    modes = [m.training for m in clf.net.modules()]
    detector, threshold = fitted("softmax", world)
    goal = mr.Targeted(int(clf.predict(world[4]).mode().values))
    evasion(clf, detector.blank().fit(clf, world[4]), world[4][:2], goal, BALL, threshold, reference=world[4])
    assert [m.training for m in clf.net.modules()] == modes
    assert all(p.requires_grad for p in clf.net.parameters())


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_the_worst_case_is_no_better_than_any_evasion_by_itself(name, world):
    clf, reference, images = world[0], world[1], world[4][:6]
    detector, threshold = fitted(name, world)
    goal = mr.Untargeted(clf.predict(images))
    few = {k: EVASIONS[k] for k in ("selective", "matching")}
    worst = strongest(clf, detector, images, goal, BALL, threshold, evasions=few, reference=reference)
    past = worst.fooled & (worst.score <= threshold)
    for make in few.values():
        alone = run(make(), clf, detector, images, goal, BALL, threshold, reference=reference)
        assert bool((past | ~(alone.fooled & (alone.score <= threshold))).all())
    assert bool(((worst.by >= 0) == worst.fooled).all())
    assert bool(BALL.legal(images, worst.images).all())


def test_bad_input_is_named(world):
    clf, reference, images = world[0], world[1], world[4][:2]
    detector, threshold = fitted("kd", world)
    goal = mr.Targeted(0)
    for name in ("matching", "hfc"):
        with pytest.raises(mr.InputError, match="give reference="):
            EVASIONS[name]()(clf, detector, images, goal, BALL, threshold)
        one_class = pick(reference, reference["logits"].argmax(1) == 1)
        with pytest.raises(mr.InputError, match="reference images of every class"):
            EVASIONS[name]()(clf, detector, images, goal, BALL, threshold, reference=one_class)
    quick = EVASIONS["selective"]
    with pytest.raises(mr.InputError, match="not fitted"):
        quick()(clf, DETECTORS["kd"](), images, goal, BALL, threshold)
    with pytest.raises(mr.InputError, match="2 images have 1 ids"):
        quick()(clf, detector, images, goal, BALL, threshold, ids=["a"])
    with pytest.raises(mr.InputError, match="target class 7"):
        quick()(clf, detector, images, mr.Targeted(7), BALL, threshold)
    with pytest.raises(mr.InputError, match="at least one"):
        quick()(clf, detector, images[:0], mr.Targeted(0), BALL, threshold)
    with pytest.raises(mr.InputError, match="steps must be at least 1"):
        mr.evasion.SelectivePGD(steps=0)
    with pytest.raises(mr.InputError, match="rounds must lie between"):
        mr.evasion.KDPenalisedCW(steps=3, rounds=4)
    with pytest.raises(mr.InputError, match="give reference="):
        strongest(clf, detector, images, goal, BALL, threshold, evasions={"hfc": mr.evasion.HFC})
