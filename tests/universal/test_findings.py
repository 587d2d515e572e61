"""One change for all images against a classifier of several findings: to hide one, or to invent one."""

from __future__ import annotations

import dataclasses

import pytest
import torch

import medrobust as mr
from medrobust.experiments.perturbation import PerturbationConfig
from medrobust.universal import SGA, SGDUAP, Universal, judge
from medrobust.universal.defence import DEFENCES
from tests.nets import grey, linear


@pytest.fixture(scope="module")
def system():
    return linear(3, head="multilabel"), grey(24, spread=0.1)


def test_a_target_is_the_presence_of_a_finding_or_its_absence(system):
    clf, images = system
    config = PerturbationConfig(target="hide:c1", norm="linf", eps=0.05)
    index = config.target_index(clf)
    assert clf.head.targets(clf.classes)[index] == "no c1"
    assert PerturbationConfig(target="invent:c1").target_index(clf) == 1
    logits = clf.logits(images)
    for k, sign in ((1, 1), (index, -1)):
        goal = mr.Targeted(k).prepare(clf.head, 3, 24, images.device)
        assert torch.equal(goal.reached(clf.head, logits), sign * logits[:, 1] > 0)
        assert torch.allclose(goal.margin(clf.head, logits), sign * logits[:, 1])
    with pytest.raises(mr.InputError, match="hide:NAME or invent:NAME, of c0, c1, c2"):
        PerturbationConfig(target="c1").target_index(clf)


@pytest.mark.parametrize("target", [1, 4])
def test_one_change_hides_or_invents_a_finding_and_is_kept(system, target, tmp_path):
    clf, images = system
    v = SGA(passes=4)(clf, images, mr.Targeted(target), mr.Linf(0.1), seed=0)
    weight = clf.net.weight.detach()[1].view(1, 6, 6)
    # a linear network has one best change: every pixel by eps along the sign of its weight
    assert torch.equal(v.delta.sign(), (weight if target == 1 else -weight).sign())
    unknown = torch.full((24, 3), -1)
    unknown[:, 0] = clf.predict(images)[:, 0]
    outcome = judge(clf, images, v, unknown)
    assert outcome.targeted_success.value == 1
    assert outcome.recall_before["c0"].value == 1
    assert outcome.recall_before["c1"].n == 0
    v.save(tmp_path / "v.safetensors")
    assert Universal.load(tmp_path / "v.safetensors").target == target


@pytest.mark.parametrize("name", DEFENCES)
@pytest.mark.parametrize("target", [None, 3])
def test_a_defence_of_findings_counts_exact_matches_and_hidden_ones(name, target):
    data = mr.data.load("phantom:chest-findings@16:n=60")
    labels = data.labels.copy()
    labels[::9, 1] = -1
    data = dataclasses.replace(data, labels=labels)
    clf = mr.training.fit(data, "small_cnn:width=4", epochs=1, seed=0, device="cpu")
    goal, at = mr.Untargeted() if target is None else mr.Targeted(5 + target), {"rounds": 1, "epochs": 1}
    hardened = DEFENCES[name](**at, perturbations=2, limit=12)(clf, data, goal, mr.L2(1.0), method=SGDUAP(passes=1))
    images, truth = data.split("test").tensors()
    clean = hardened.classifier.predict(images)
    last = hardened.rounds[-1]
    assert last.accuracy.value == pytest.approx(((clean == truth) | (truth < 0)).all(1).float().mean())
    attacked = [hardened.classifier.predict(v.apply(images)) for v in hardened.pool]
    hit = [(a != clean).any(1) if target is None else a[:, target] == 0 for a in attacked]
    assert last.fresh.rate.value == pytest.approx(float(torch.stack(hit).float().mean()))
    if target is not None:
        assert last.fresh.base.value == pytest.approx(float((clean[:, target] == 0).float().mean()))
        assert last.fresh.new.n == int((clean[:, target] == 1).sum())
    assert "Exact match of the findings" in hardened.verdict or hardened.verdict.startswith("Inconclusive")
