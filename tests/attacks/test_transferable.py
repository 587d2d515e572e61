"""Gradients meant for other networks: each part where its effect is known, and surrogates together."""

from __future__ import annotations

import pytest
import torch

import medrobust as mr
from medrobust.attacks import MIFGSM, Transfer, TransferableFGSM, run
from medrobust.attacks.transfer import ensemble
from medrobust.attacks.transferable import smoothed
from tests.nets import bumpy, grey, linear

OFF = {"diversity": 0.0, "translation": 0}


def test_with_every_part_off_it_is_mi_fgsm():
    clf, images = bumpy(classes=3), torch.rand(9, 1, 16, 16)
    goal, ball = mr.Untargeted(clf.predict(images)), mr.Linf(0.03)
    plain, same = (
        attack(clf, images, goal, ball, full=True)
        for attack in (MIFGSM(steps=6), TransferableFGSM(steps=6, step=1 / 6, **OFF))
    )
    assert ((plain - same).abs() > 1e-6).float().mean() < 0.01


@pytest.mark.parametrize("part", [{"scales": 3}, {"nesterov": True}, {"variance": 3}], ids=repr)
@pytest.mark.parametrize("norm", [mr.Linf, mr.L2])
def test_where_the_gradient_is_the_same_everywhere_the_parts_change_nothing(part, norm):
    clf, images = linear(2), grey(8)
    weight = clf.net.weight.detach()
    labels, ball = clf.predict(images), norm(0.02)
    attack = TransferableFGSM(steps=5, **OFF, **part)
    done = run(attack, clf, images, mr.Untargeted(labels), ball, full=True)
    away = (weight[1] - weight[0]).view(1, 1, 6, 6) * (1 - 2 * labels).view(-1, 1, 1, 1)
    torch.testing.assert_close(done.images, images + 0.02 * ball.ascent(away), atol=1e-6, rtol=0)
    assert (done.gradients == 5 * (part.get("scales", 1) + part.get("variance", 0))).all()


def test_an_image_is_shrunk_as_a_whole_and_stays_inside():
    attack, images = TransferableFGSM(diversity=0.5, probability=0.5), torch.ones(200, 1, 32, 24)
    shown = attack._placed(images, 0, 0, range(200))
    moved = (shown != images).flatten(1).any(1)
    assert 70 < moved.sum() < 130
    # of a white image on black the sum is its area: between a quarter and all of the frame
    share = shown[moved].mean((1, 2, 3))
    assert share.min() > 0.24
    assert share.max() <= 1
    assert share.mean() == pytest.approx(7 / 12, abs=0.05)  # the mean of the square of a side from 1/2 to 1
    corners = shown[moved][:, 0, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 0).any(0).all()
    assert torch.equal(TransferableFGSM(diversity=0.5, probability=0.0)._placed(images, 0, 0, range(200)), images)


def test_a_smoothed_impulse_is_a_gaussian_and_its_sharp_share_stays():
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[..., 4, 4] = -3.0
    soft = smoothed(impulse, 2, 0.0)[0, 0]
    line = torch.exp(-(torch.arange(-2.0, 3.0) ** 2) / 2)
    torch.testing.assert_close(soft[2:7, 2:7] / soft[4, 4], line[:, None] * line)
    assert (soft[0] == 0).all()
    assert soft.abs().mean() == pytest.approx(1)
    assert torch.equal(smoothed(impulse, 2, 1.0), impulse / impulse.abs().mean())
    assert torch.equal(smoothed(impulse, 0, 0.5), impulse)
    assert not smoothed(torch.zeros(1, 1, 9, 9), 2, 0.5).any()


def test_an_ensemble_has_the_mean_of_the_logits_by_name():
    first, second, images = bumpy(classes=3), bumpy(classes=3, seed=7), torch.rand(9, 1, 16, 16)
    order = [2, 0, 1]

    class Turned(torch.nn.Module):
        def forward(self, x):
            return second.net(x)[:, order]

    turned = mr.Classifier(Turned(), [second.classes[i] for i in order], channels=1)
    both = ensemble([first, turned])
    torch.testing.assert_close(both.logits(images), (first.logits(images) + second.logits(images)) / 2)
    goal, ball, ids = mr.Untargeted(first.predict(images)), mr.Linf(0.05), [f"im{i}" for i in range(9)]
    made = Transfer([second, second]).examples(images, goal, ball, seed=1, ids=ids)
    one = Transfer(second).examples(images, goal, ball, seed=1, ids=ids)
    assert ((made - one).abs() > 1e-6).float().mean() < 0.02
    transfer = Transfer([second, turned])
    done = run(transfer, first, images, goal, ball, seed=1, ids=ids)
    alone = run(transfer, first, images[[4]], mr.Untargeted(goal.labels[[4]]), ball, seed=1, ids=ids[4:5])
    assert torch.equal(alone.images, done.images[[4]])


def test_surrogates_and_settings_that_do_not_fit_are_refused():
    with pytest.raises(mr.InputError, match="an ensemble needs networks of the same classes"):
        Transfer([bumpy(classes=3), bumpy(classes=2)])
    with pytest.raises(mr.InputError, match="at least one surrogate"):
        Transfer([])
    with pytest.raises(mr.InputError, match="scales is at least 1"):
        TransferableFGSM(scales=0)
    with pytest.raises(mr.InputError, match="diversity, probability and sharpness are shares"):
        TransferableFGSM(probability=2.0)
