"""Operating points of two classes and of several findings: given, chosen by a rule, kept with the classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust import operating_points
from medrobust.operating_points import ThresholdRule
from tests.nets import grey, linear


def findings(threshold=None) -> mr.Classifier:
    return mr.Classifier(linear(3).net, list("abc"), head="multilabel", threshold=threshold)


def test_thresholds_of_findings_move_decisions_and_never_probabilities(tmp_path):
    images, points = grey(30), (0.2, 0.5, 0.9)
    plain, moved = findings(), findings(points)
    p = plain.probabilities(images)
    assert torch.allclose(moved.probabilities(images), p, atol=1e-6)
    assert torch.equal(moved.predict(images), (p > torch.tensor(points)).long())
    assert not torch.equal(moved.predict(images), plain.predict(images))
    decided = moved.predict(images)
    assert (moved.head.gap(moved.logits(images), decided) >= 0).all()
    assert moved.with_net(moved.net).threshold == points
    assert moved.digest() != plain.digest()
    assert plain.digest() == findings(0.5).digest()
    assert findings(0.3).threshold == (0.3, 0.3, 0.3)
    assert findings([float("nan"), 0.2, 0.5]).threshold == (0.5, 0.2, 0.5)  # as torchxrayvision writes "none"


@pytest.mark.parametrize("wrong", [(0.2, 0.3), (0.0, 0.5, 0.5), 1.5, float("nan"), ()])
def test_thresholds_that_make_no_sense_are_refused(wrong):
    with pytest.raises(mr.InputError, match="threshold"):
        findings(wrong)


def goodness(rule: ThresholdRule, said: np.ndarray, present: np.ndarray) -> float:
    """What the rule makes as large as possible; -1 where its condition does not hold."""
    hits, spared = said[present].mean(), (~said)[~present].mean()
    if rule.name in ("sensitivity", "specificity"):
        held, free = (hits, spared) if rule.name == "sensitivity" else (spared, hits)
        return free if held >= rule.least else -1
    return hits + spared if rule.name == "youden" else 2 * (said & present).sum() / (said.sum() + present.sum())


@pytest.mark.parametrize("text", ["youden", "f1", "sensitivity=0.9", "specificity=0.95", "sensitivity=1"])
def test_a_rule_is_the_best_of_every_cut(text):
    draw, rule = np.random.default_rng(0), ThresholdRule.read(text)
    for _ in range(20):
        present = draw.random(40) < 0.4
        present[:2] = True, False
        logits = np.round(draw.standard_normal(40) + present, 1)
        every = [goodness(rule, logits > cut, present) for cut in (logits.min() - 1, *logits)]
        reached = goodness(rule, logits > rule.cut(logits, present), present)
        assert reached == max(every) >= 0


class Part:
    """As much of a Dataset as choosing thresholds needs."""

    def __init__(self, images, labels):
        self.pixels, self.labels = images, labels

    def by_id(self):
        return self

    def select(self, index):
        return Part(self.pixels[index], self.labels[index])

    def batches(self, size):
        yield from ((images, None, None) for images in self.pixels.split(size))


def test_thresholds_are_chosen_on_known_findings_and_what_cannot_be_chosen_stays():
    images, classifier = grey(40), findings((0.4, 0.4, 0.4))
    p = classifier.probabilities(images).numpy()
    labels = (p > np.median(p, 0)).astype(np.int64)
    labels[:, 2] = 1
    labels[:10, 0] = -1
    moved, notes = operating_points.chosen(classifier, Part(images, labels), ThresholdRule("youden"))
    decided = moved.predict(images).numpy()
    assert (decided == labels)[labels[:, 0] >= 0][:, :2].all()
    assert moved.threshold[2] == 0.5
    assert "0.5 stays: c" in notes[1]
    assert moved.provenance["threshold_rule"] == {"rule": "youden", "images": 40}
    again, _ = operating_points.chosen(moved, Part(images, labels), ThresholdRule("youden"))
    assert again.threshold == pytest.approx(moved.threshold, rel=1e-5)
    two = mr.Classifier(linear().net, "ab")
    p = two.probabilities(images)[:, 1].numpy()
    at, _ = operating_points.chosen(two, Part(images, (p > np.sort(p)[30]).astype(np.int64)), ThresholdRule("youden"))
    assert np.sort(p)[30] < at.threshold < np.sort(p)[31]
    with pytest.raises(mr.InputError, match="two classes or for several findings"):
        operating_points.chosen(
            mr.Classifier(linear(3).net, "abc"), Part(images, labels[:, 0]), ThresholdRule("youden")
        )


def test_thresholds_are_read_by_the_names_of_findings():
    classifier = findings((0.2, 0.3, 0.4))
    assert operating_points.read("0.3") == 0.3
    given = operating_points.read("a=0.1, c=0.6")
    assert operating_points.placed(given, classifier) == (0.1, 0.3, 0.6)
    assert operating_points.placed(None, classifier) == classifier.threshold
    with pytest.raises(mr.InputError, match=r"'d'.*a, b, c"):
        operating_points.placed({"d": 0.1}, classifier)
    two = mr.Classifier(linear().net, "ab")
    assert operating_points.placed({"b": 0.1}, two) == 0.1
    for wrong in ("x", "a=", "a=b"):
        with pytest.raises(mr.InputError, match=r"effusion=0\.3"):
            operating_points.read(wrong)
    for wrong in ("best", "sensitivity=2", "sensitivity=0", "specificity"):
        with pytest.raises(mr.InputError, match="youden, f1"):
            ThresholdRule.read(wrong)
