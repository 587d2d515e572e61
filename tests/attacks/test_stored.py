"""Attacks on images as a file holds them: every image of whole levels, and optima that are known."""

from __future__ import annotations

import pytest
import torch

import medrobust as mr
from medrobust.attacks import ATTACKS, FGSM, FMN, PGD, run, sparsest, sweep
from medrobust.attacks.engine import WORTH
from medrobust.images import on_grid
from tests.attacks.test_contract import balls, make
from tests.nets import bumpy, grey, linear


@pytest.fixture(scope="module")
def clf():
    return bumpy(classes=3)


@pytest.fixture(scope="module")
def images():
    x = torch.rand(11, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    x[:, :, :4] = 0.0
    return on_grid(x, 255)


def whole(images, levels):
    return torch.equal(images, on_grid(images, levels))


@pytest.mark.parametrize("name", ATTACKS)
def test_results_are_of_whole_levels_legal_and_do_not_depend_on_the_batch(name, clf, images):
    seen = []
    handle = clf.net.body[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    labels, ids = clf.predict(images), [f"im{i}" for i in range(11)]
    ball, attack, stored = balls(name)[-1], make(name), clf.stored(255)
    seen.clear()

    def attacked(rows):
        goal = mr.Untargeted(labels[rows])
        return attack(stored, images[rows], goal, ball, seed=3, ids=[ids[i] for i in rows])

    together = attacked(list(range(11)))
    handle.remove()
    assert whole(together, 255)
    if attack.steps < WORTH:  # above it a copy of the network is made, and compared on images of its own
        assert all(whole(x, 255) for x in seen)
    assert ball.legal(images, together).all()
    assert mr.judge(clf, images, together, mr.Untargeted(labels), ball).survives.any()
    assert torch.equal(attacked([7, 2, 10]), together[[7, 2, 10]])


def smallest_levels(clf, images, levels):
    """In closed form, for two classes: the margin over what one level everywhere gains."""
    weight = clf.net.weight.detach()
    gain = (weight[1] - weight[0]).abs().sum() / levels
    raw = clf.logits(images)
    return ((raw[:, 0] - raw[:, 1]).abs() / gain).ceil()


@pytest.mark.parametrize("levels", [255, 4095])
@pytest.mark.parametrize("attack", [PGD(), FMN(), FGSM()], ids=repr)
def test_eps_is_the_smallest_number_of_whole_levels(attack, levels):
    clf, images = linear(2), on_grid(grey(12), levels)
    truth = smallest_levels(clf, images, levels)
    grid = [k / levels for k in range(1, int(truth.max()) + 2)]
    curve = sweep(attack, clf.stored(levels), images, mr.Untargeted(clf.predict(images)), mr.Linf, grid)
    found = curve.min_eps * levels
    assert (found.round() - truth <= (0 if levels == 255 else (0.05 * truth).clamp_min(1))).all()
    assert torch.allclose(found, found.round(), atol=0.01)
    assert (found.round() >= truth).all()


def test_an_l2_change_too_small_for_rounding_is_found_by_moving_the_largest_weights():
    """The best k moves of one level: rounding alone would leave the image as it is."""
    clf, images = linear(2, side=12), on_grid(grey(12, side=12), 255)
    weight = clf.net.weight.detach()
    gains = (weight[1] - weight[0]).abs().sort(descending=True).values.cumsum(0) / 255
    raw = clf.logits(images)
    needed = torch.searchsorted(gains, (raw[:, 0] - raw[:, 1]).abs()) + 1
    some = needed <= 100
    assert some.sum() >= 3
    images, needed = images[some], needed[some]
    grid = [k**0.5 / 255 for k in range(1, 101)]
    curve = sweep(PGD(), clf.stored(255), images, mr.Untargeted(clf.predict(images)), mr.L2, grid)
    assert ((curve.min_eps * 255) ** 2).round().long().tolist() == needed.tolist()


def test_a_success_that_rounding_undoes_is_repaired_and_counted(clf, images):
    undone = 0
    for levels in (15, 31, 63):
        stored = on_grid(images, levels)
        goal, ball = mr.Untargeted(labels := clf.predict(stored)), mr.Linf(2 / levels)
        plain = PGD(steps=20)(clf, stored, goal, ball)
        lost = (clf.predict(plain) != labels) & (clf.predict(on_grid(plain, levels)) == labels)
        done = run(PGD(steps=20), clf.stored(levels), stored, goal, ball)
        assert (clf.predict(done.images) != labels)[lost].all()
        assert (done.forwards[lost] > 0).all()
        undone += int(lost.sum())
    assert undone > 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("goal", ["untargeted", "targeted"])
def test_the_sparsest_change_of_a_linear_network_is_the_sorted_prefix(channels, goal):
    clf, images = linear(2, side=12, channels=channels), on_grid(grey(16, side=12, channels=channels), 255)
    weight = (clf.net.weight[1] - clf.net.weight[0]).detach().abs().view(channels, -1).sum(0)
    gains = weight.sort(descending=True).values.cumsum(0) / 255
    raw, labels = clf.logits(images), clf.predict(images)
    if goal == "targeted":
        images, raw = images[labels == 0], raw[labels == 0]
    truth = torch.searchsorted(gains, (raw[:, 0] - raw[:, 1]).abs()).float() + 1
    truth[truth > len(gains)] = torch.inf
    assert torch.isfinite(truth).any()
    assert torch.isinf(truth).any()
    aim = mr.Targeted(1) if goal == "targeted" else mr.Untargeted(labels)
    found = sparsest(clf, images, aim, 255)
    assert torch.equal(found.pixels, truth)
    assert torch.equal(found.one_shot, truth)


def test_the_sparsest_change_is_one_level_beats_the_first_gradient_and_keeps_off_padding(clf, images):
    labels, ids = clf.predict(images), [f"im{i}" for i in range(11)]
    movable = torch.ones(11, 1, 16, 16, dtype=torch.bool)
    movable[:, :, :4] = False
    levels = 15  # coarse levels, so that this small network is turned by some of them
    images = on_grid(images, levels)
    found = sparsest(clf, images, mr.Untargeted(labels), levels, movable=movable, ids=ids)
    delta = (found.images - images) * levels
    turned = torch.isfinite(found.pixels) & (found.pixels > 0)
    assert turned.sum() >= 3
    assert (clf.predict(found.images) != labels)[turned].all()
    assert (delta.abs() <= 1.001).all()
    assert torch.equal((delta.abs() > 0.5).flatten(1).sum(1)[turned].float(), found.pixels[turned])
    assert (delta[~movable] == 0).all()
    assert (found.pixels <= found.one_shot).all()
    part = [8, 1, 5]
    alone = sparsest(
        clf, images[part], mr.Untargeted(labels[part]), levels, movable=movable[part], ids=[ids[i] for i in part]
    )
    assert torch.equal(alone.images, found.images[part])
