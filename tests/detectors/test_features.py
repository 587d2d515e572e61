"""Features: the right numbers, one pass, the same in any batch, and the network left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.detectors import Features
from tests.nets import bumpy, grey, linear


def test_they_are_what_the_modules_compute_and_the_network_is_left_as_it_was():
    clf = bumpy()
    images = grey(5, 16, spread=0.2)
    clf.net.train()
    table = Features(clf, ("penultimate", "body.4", "body.8", "logits"))(images)
    assert all(m.training for m in clf.net.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in clf.net.modules())
    body = clf.net.eval().body
    with torch.no_grad():
        torch.testing.assert_close(table["body.4"], body[:5](images).mean((2, 3)))
        torch.testing.assert_close(table["penultimate"], body[:10](images))
        torch.testing.assert_close(table["body.8"], body[:9](images).flatten(1))
    assert list(table) == ["penultimate", "body.4", "body.8", "logits"]
    assert torch.equal(table["logits"], clf.logits(images))


def test_a_layer_is_read_before_the_next_one_works_in_place():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))
    clf = mr.Classifier(net, ("a", "b"), channels=1)
    images = grey(6, 2)
    table = Features(clf, ("1", "penultimate"))(images)
    assert bool((table["1"] < 0).any())
    assert bool((table["penultimate"] >= 0).all())


@pytest.mark.parametrize("narrow", [False, True])
def test_rows_are_the_same_to_the_bit_in_any_batch(narrow):
    clf = bumpy()
    images = grey(70, 16, spread=0.2)
    if narrow:
        clf.try_narrow(images.shape)
    features = Features(clf, ("penultimate", "body.0", "body.4"))
    whole = features(images)
    for part in (slice(3, 4), slice(60, 70), slice(1, 66)):
        for name, values in features(images[part]).items():
            assert torch.equal(values, whole[name][part]), name


def test_a_network_seen_for_the_first_time_is_inspected_apart():
    """What a classifier runs to inspect a network is no row of the features."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    images = grey(5)
    table = Features(mr.Classifier(net, ("a", "b"), outputs="logits", channels=1), ("penultimate", "0"))(images)
    assert torch.equal(table["penultimate"], images.flatten(1))
    assert torch.equal(table["0"], images.flatten(1))


def test_one_forward_pass_gives_everything():
    clf, calls = bumpy(), []
    features = Features(clf, ("penultimate", "body.0"))
    features(grey(1, 16))  # what the layers carry is probed once
    handle = clf.net.register_forward_hook(lambda *_: calls.append(1))
    features(grey(clf.batch_size((1, 1, 16, 16)), 16))
    handle.remove()
    assert len(calls) == 1


def test_the_graph_reaches_the_pixels_and_agrees_with_the_rows():
    clf = bumpy()
    images = grey(3, 16, spread=0.2).requires_grad_()
    features = Features(clf, ("penultimate",))
    logits, table = features.differentiable(images)
    plain = features(images.detach())
    assert torch.equal(table["penultimate"].detach(), plain["penultimate"])
    assert torch.equal(logits.detach(), plain["logits"])
    table["penultimate"][1].sum().backward()
    assert bool(images.grad[1].any())
    assert not bool(images.grad[0].any())


def test_wrong_names_and_networks_are_answered_with_what_there_is():
    with pytest.raises(mr.InputError, match=r"no layer 'layer9'; it has penultimate, logits, body, body\.0"):
        Features(bumpy(), ("layer9",))
    with pytest.raises(mr.InputError, match="write"):
        Features(bumpy(), "penultimate")
    with pytest.raises(mr.InputError, match=r"runs none"):
        Features(linear(), ("penultimate",))(grey(2))
    with pytest.raises(mr.InputError, match="multi-label"):
        Features(linear(head="multilabel"))
    with pytest.raises(mr.InputError, match="at least one"):
        Features(bumpy())(torch.empty(0, 1, 16, 16))
    with pytest.raises(mr.InputError, match=r"reads layer 'body\.4'"):
        mr.detectors.KernelDensity(layers=("body.4",)).fit(Features(bumpy()), grey(40, 16))
