"""A folded copy that follows a network in training."""

from __future__ import annotations

import copy

import pytest
import torch

from medrobust import models
from medrobust.models.folding import Following

SHAPE = (3, 28, 28)


def logits(net, images):
    with torch.no_grad():
        return net.eval()(images)


@pytest.mark.parametrize("name", ["small_cnn", "resnet18", "test_efficientnet"])  # at 28 px: kernels on one pixel
def test_it_answers_as_the_network_does_after_every_refresh(name):
    torch.manual_seed(0)
    net = models.build(name, classes=2, channels=3, size=28).eval()
    following = Following.of(net, SHAPE)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
    images = torch.rand(8, *SHAPE)
    first = logits(following.net, images)
    for _ in range(2):
        net.train()(images).square().sum().backward()  # the statistics of the BatchNorms move too
        optimiser.step()
        following.refresh()
        expected, given = logits(net, images), logits(following.net, images)
        torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
    assert (first - given).abs().max() > 1e-3 * first.abs().max()


def test_a_copy_leaves_the_network_alone():
    net = models.build("resnet18", classes=2, channels=3, size=28).eval()
    before = copy.deepcopy(net.state_dict())
    following = Following.of(net, SHAPE)
    following.refresh()
    logits(following.net, torch.rand(2, *SHAPE))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.requires_grad for p in net.parameters())


def test_where_nothing_folds_there_is_none():
    assert Following.of(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), (3, 2, 2)) is None
