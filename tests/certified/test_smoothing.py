"""Randomized smoothing: of a linear classifier everything is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm

import medrobust as mr
from medrobust.certified import ABSTAINED, Smoothing, lower_limit, smooth
from medrobust.errors import InputError
from medrobust.models import BlackBoxModel
from tests.nets import grey, linear

SMOOTHING = Smoothing(0.1, draws=300, choosing=40)


def test_the_limit_is_exact():
    """At the limit, so many hits or more come up with probability alpha."""
    for hits, n in ((1, 1), (7, 10), (99, 100), (100, 100)):
        limit = float(lower_limit(torch.tensor([hits]), n, 0.01)[0])
        assert binom.sf(hits - 1, n, limit) == pytest.approx(0.01)
    assert float(lower_limit(torch.tensor([0]), 10, 0.01)[0]) == 0


def test_of_a_linear_classifier_the_radius_is_below_the_distance_to_the_boundary():
    """It decides as the classifier does where it is sure, and with many draws the radius comes near the distance."""
    clf, images = linear(2, side=6, scale=5.0), grey(12, spread=0.01)
    distance = (clf.logits(images) @ torch.tensor([-1.0, 1.0])).abs() / (clf.net.weight[1] - clf.net.weight[0]).norm()
    found = smooth(clf, images, SMOOTHING)
    sure = ~found.abstains
    assert 0 < sure.sum() < 12
    assert torch.equal(found.decision[sure], clf.predict(images)[sure])
    assert (found.radius[sure] <= distance.detach()[sure]).all()
    most = 0.1 * norm.ppf(0.001 ** (1 / SMOOTHING.draws))
    near = sure & (distance < 0.5 * most)
    # of 300 draws the limit of the probability is about 0.07 to 0.1 too low
    assert (norm.cdf(distance.detach()[near].numpy() / 0.1) - norm.cdf(found.radius[near].numpy() / 0.1) < 0.15).all()
    assert (found.radius[~sure] == 0).all()
    assert (found.decision[~sure] == ABSTAINED).all()


def test_an_image_gets_the_same_answer_in_any_company_and_is_counted():
    clf, images = linear(2, side=6, scale=5.0), grey(3)
    together = smooth(clf, images, SMOOTHING, ids=["a", "b", "c"], seed=1)
    alone = smooth(clf, images[1:2], SMOOTHING, ids=["b"], seed=1)
    assert torch.equal(alone.radius, together.radius[1:2])
    calls = []
    smooth(clf, images, SMOOTHING, advance=calls.append)
    assert calls == [1, 1, 1]


@pytest.mark.parametrize("head", ["logit", "multilabel"])
def test_every_head_is_smoothed(head):
    """Several findings: the image holds as far as its least sure known finding does."""
    clf, images = linear(2, side=6, head=head, scale=5.0).at(0.4, outputs="logits"), grey(6)
    labels, found = clf.predict(images), smooth(clf, images, SMOOTHING)
    certificate = found.certificate(labels)
    assert (certificate > 0).any()
    assert (certificate[found.abstains] < 0).all()
    assert (found.certificate(1 - labels) < 0).all()
    if head == "multilabel":
        sure = ~found.abstains
        assert torch.equal(certificate[sure], found.radius[sure].amin(1))
        unknown = labels.clone()
        unknown[:, 0] = -1
        assert (found.certificate(unknown) >= certificate).all()


def test_a_black_box_is_smoothed_by_its_answers():
    """It is asked about images alone, and as often as there are draws."""

    def answer(images: np.ndarray) -> np.ndarray:
        assert images.min() >= 0
        assert images.max() <= 1
        return (images.mean((1, 2, 3)) > 0.5).astype(np.int64)

    net = BlackBoxModel(answer, ["dark", "bright"])
    clf = mr.Classifier(net, ["dark", "bright"])
    images = torch.tensor([0.0, 0.3, 1.0]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    with pytest.warns(UserWarning, match="Only answers"):
        clf.ready(images)
    before = net.queries
    found = smooth(clf, images, SMOOTHING)
    assert net.queries - before == 3 * 340
    assert found.decision.tolist() == [0, 0, 1]
    assert (found.radius > 0).all()


@pytest.mark.parametrize("wrong", [{"sigma": 0.0}, {"sigma": 0.1, "draws": 0}, {"sigma": 0.1, "alpha": 0.7}])
def test_what_is_not_possible_is_refused(wrong):
    with pytest.raises(InputError):
        Smoothing(**wrong)
