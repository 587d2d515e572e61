"""A classifier of several findings as one of their sets: the same decisions, losses and margins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust.attacks import PGD
from medrobust.detectors import DETECTORS, Features
from medrobust.detectors.features import rows
from medrobust.evasion import EVASIONS, run
from medrobust.experiments import system
from medrobust.experiments.finding_sets import SetNetwork, as_sets, of_sets, sets
from tests.nets import Linear, bumpy, grey, linear

NONE = np.zeros((0, 3), np.int64)


@pytest.mark.parametrize("threshold", [None, (0.3, 0.5, 0.8)])
def test_a_set_of_findings_is_a_class_with_the_same_decision_loss_and_margin(threshold):
    findings = linear(3, head="multilabel")
    findings = mr.Classifier(findings.net, findings.classes, head="multilabel", threshold=threshold, channels=1)
    classes = mr.Classifier(SetNetwork(findings, sets(3, NONE)), [str(i) for i in range(8)], channels=1)
    images = grey(40, spread=0.2)
    decided = findings.predict(images)
    assert len(decided.unique(dim=0)) > 1
    every = torch.from_numpy(sets(3, NONE))
    assert torch.equal(every[classes.predict(images)], decided)
    labels = torch.arange(40) % 8
    several, one = mr.Untargeted(every[labels]), mr.Untargeted(labels)
    for loss in (mr.threat.cross_entropy, mr.threat.margin):
        a = loss(several, findings.head, findings.logits(images))
        b = loss(one, classes.head, classes.logits(images))
        if loss is mr.threat.margin:  # both are the smallest margin of a finding where the decision is the label
            right = (decided == every[labels]).all(1)
            assert right.any()
            a, b = a[right], b[right]
        assert torch.allclose(a, b, atol=1e-4)
    goals = ((findings, mr.Untargeted(decided)), (classes, mr.Untargeted(classes.predict(images))))
    adv = [PGD(steps=5)(clf, images, goal, mr.Linf(0.1)) for clf, goal in goals]
    assert (findings.predict(adv[0]) != decided).any(1).float().mean() > 0.5
    assert torch.isclose(*adv, atol=1e-6).float().mean() > 0.99  # step by step the same, but where signs are of zero


def test_images_with_an_unknown_finding_have_no_set_and_many_findings_too_many_sets():
    data = mr.data.load("phantom:chest-findings@32:n=60")
    labels = data.labels.copy()
    labels[::4, 2] = -1
    data = dataclasses.replace(data, labels=labels)
    weight = torch.randn(5, 32 * 32, generator=torch.Generator().manual_seed(0))
    clf = mr.Classifier(Linear(weight, torch.zeros(5)), data.classes, head="multilabel", channels=1)
    tested = as_sets(system.given(data, clf))
    kept = [name for name, row in zip(data.ids, labels, strict=True) if (row >= 0).all()]
    assert set(tested.data.ids) == set(kept)
    assert not tested.data.multilabel
    names = {data.label_text(data.ids.index(name)) for name in kept}
    assert {tested.data.label_text(i) for i in range(len(kept))} == names
    assert tested.classifier.classes[0] == "no finding"
    assert tested.disease_classes == tuple(range(1, 32))
    assert any(f"32 sets of 5 findings, {np.unique(tested.test.labels).size} of them" in n for n in tested.class_notes)
    many = mr.Classifier(linear(53, head="multilabel").net, list(map(str, range(53))), head="multilabel", channels=1)
    with pytest.raises(mr.InputError, match="up to 52 findings; this classifier has 53"):
        as_sets(dataclasses.replace(system.given(data, clf), classifier=many))


def test_of_many_findings_the_sets_of_the_labels_are_classes_and_all_others_one():
    findings = linear(10, head="multilabel")
    images = grey(200, spread=0.2)
    decided = findings.predict(images)
    labels = decided[:60].numpy()
    every = sets(10, np.concatenate([labels, -np.ones((1, 10), np.int64)]))
    classes = of_sets(findings, every, findings.classes)
    assert classes.classes[-1] == "another set"
    place = {tuple(row): i for i, row in enumerate(every.tolist())}
    wanted = [place.get(tuple(row), len(every)) for row in decided.tolist()]
    assert len(every) in wanted
    assert classes.predict(images).tolist() == wanted
    inside = torch.tensor(wanted[:60])
    margin = mr.threat.margin(mr.Untargeted(inside), classes.head, classes.logits(images[:60]))
    smallest = mr.threat.margin(mr.Untargeted(decided[:60]), findings.head, findings.logits(images[:60]))
    assert torch.allclose(margin, smallest, atol=1e-4)
    goals = ((findings, mr.Untargeted(decided[:60])), (classes, mr.Untargeted(inside)))
    hit = [goal.prepare(c.head, len(c.classes), 60, images.device) for c, goal in goals]
    adv = PGD(steps=5)(classes, images[:60], goals[1][1], mr.Linf(0.05))
    reached = [g.reached(c.head, c.logits(adv)) for (c, _), g in zip(goals, hit, strict=True)]
    assert torch.equal(*reached)
    assert reached[0].any()


@pytest.mark.parametrize("name", EVASIONS)
def test_an_evasion_of_findings_changes_their_set_whatever_sets_the_reference_lacks(name):
    net = bumpy(3)
    findings = mr.Classifier(net.net, net.classes, head="multilabel")
    every = sets(3, NONE)
    classes = of_sets(findings, every, findings.classes)
    clean, images, ball = grey(60, 16, spread=0.2), grey(6, 16, spread=0.2, seed=3), mr.Linf(12 / 255)
    reference = Features(classes, ("penultimate",))(clean)
    reference = rows(reference, torch.isin(reference["logits"].argmax(1), torch.tensor([1, 3])))
    detector = DETECTORS["kd"]().fit_features(reference)
    threshold = detector.threshold_at(detector.score_features(reference), 0.05)
    evasion, labels = EVASIONS[name](), classes.predict(images)
    evasion.steps = 10
    evaded = run(evasion, classes, detector, images, mr.Untargeted(labels), ball, threshold, reference=reference)
    assert evaded.fooled.any()
    changed = (findings.predict(evaded.images) != torch.from_numpy(every)[labels]).any(1)
    assert torch.equal(evaded.fooled, changed)
    assert bool(ball.legal(images, evaded.images).all())
