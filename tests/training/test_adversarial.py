"""Adversarial training: each loss in closed form, a network that gets harder to fool, and a killed run that goes on."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import medrobust as mr
from medrobust import InputError, training
from medrobust.attacks import PGD, run
from medrobust.progress import NoProgress
from medrobust.threat import L2, Linf, Untargeted
from medrobust.training.adversarial import MART, METHODS, TRADES, DualNormTraining, PGDTraining
from medrobust.training.adversarial.awp import moved
from medrobust.training.adversarial.classes import Choices
from medrobust.training.adversarial.dual_batch_norm import using
from medrobust.training.state import FILE

BALL = Linf(4 / 255)
NAMES = sorted(METHODS)


@pytest.fixture(scope="module")
def data():
    return mr.data.load("phantom:chest@16:n=200")


@pytest.fixture(scope="module")
def classifier(data):
    return training.fit(data, "small_cnn:width=8", epochs=12, lr=0.01, augment=False, device="cpu")


def held(classifier, data, ball) -> float:
    images, labels = data.split("test").tensors()
    return 1 - float(run(PGD(10), classifier, images, Untargeted(labels), ball, seed=0).reached.float().mean())


@pytest.mark.parametrize("name", NAMES)
def test_every_method_makes_it_harder_to_fool_and_leaves_the_one_given_alone(name, classifier, data):
    before, weights = held(classifier, data, BALL), classifier.digest()
    after = training.further(classifier, data, epochs=6, lr=0.01, augment=False, method=METHODS[name](BALL))
    history = after.provenance["further"][-1]["history"]
    assert classifier.digest() == weights
    assert held(after, data, BALL) > before + 0.2
    assert 0 <= history[-1]["train_held"] <= 1
    kept = after.provenance["further"][-1]["epoch_kept"]
    assert history[kept - 1]["attacked_balanced_accuracy"] == max(h["attacked_balanced_accuracy"] for h in history)


@pytest.mark.parametrize("head", ["softmax", "logit", "multilabel"])
@pytest.mark.parametrize("ball", [BALL, L2(0.3)], ids=["linf", "l2"])
def test_every_head_and_norm_trains(head, ball):
    several = head == "multilabel"
    data = mr.data.load("phantom:chest-findings@16:n=60" if several else "phantom:chest@16:n=60")
    net = mr.models.build("small_cnn:width=4", classes=len(data.classes), channels=1, size=16, head=head)
    classifier = mr.Classifier(net, data.classes, head=head, size=16, channels=1, outputs="logits")
    for name in NAMES:
        steps = 2 if name != "fast" else 1
        after = training.further(classifier, data, epochs=1, method=METHODS[name](ball, steps=steps))
        assert np.isfinite(after.provenance["further"][-1]["history"][0]["train_loss"])


def test_losses_in_closed_form():
    clean, attacked = torch.tensor([[2.0, -1.0], [0.5, 1.0]]), torch.tensor([[0.1, 0.3], [1.5, -0.5]])
    labels = torch.tensor([0, 1])
    choices = Choices.of(labels, None)
    p, q = clean.softmax(1), attacked.softmax(1)
    divergence = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(choices.divergence(clean, attacked), divergence)
    torch.testing.assert_close(choices.cross_entropy(clean), F.cross_entropy(clean, labels))
    assert choices.right(clean) == 1
    assert choices.right(attacked) == 0

    class Fixed:
        def logits(self, images):
            return clean if images is before else attacked

    before, after = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    batch = type("Batch", (), {"images": before, "choices": choices})
    trades, _ = TRADES(BALL, beta=6.0).loss(Fixed(), batch, after)
    torch.testing.assert_close(trades, F.cross_entropy(clean, labels) + 6 * divergence.mean())
    own, other = q[torch.arange(2), labels], q[torch.arange(2), 1 - labels]
    boosted = -own.log() - (1 - other).log()
    unsure = 1 - p[torch.arange(2), labels]
    mart, _ = MART(BALL, beta=5.0).loss(Fixed(), batch, after)
    torch.testing.assert_close(mart, (boosted + 5 * divergence * unsure).mean())


def test_a_finding_is_a_choice_of_two_and_unknown_ones_do_not_count():
    logits, labels = torch.tensor([[1.0, -2.0, 0.5]]), torch.tensor([[1, 0, -1]])
    weights = torch.tensor([3.0, 2.0, 9.0])
    choices = Choices.of(labels, weights)
    expected = training.losses.loss(logits, labels, weights)
    torch.testing.assert_close(choices.cross_entropy(logits), expected)


def test_weights_move_by_their_share_and_come_back(classifier):
    net = classifier.net
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    loss = F.cross_entropy(net(torch.rand(4, 1, 16, 16)), torch.tensor([0, 1, 0, 1]))
    moments = {name: value.clone() for name, value in net.named_buffers()}
    with moved(net, loss, 0.01):
        for name, weight in net.named_parameters():
            change = (weight.detach() - before[name]).norm() / before[name].norm()
            assert float(change) == pytest.approx(0.01 if weight.ndim > 1 else 0.0, rel=1e-3)
        net(torch.rand(4, 1, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())
    assert all(torch.equal(value, moments[name]) for name, value in net.named_buffers())
    net.load_state_dict(before)
    net.eval()


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_training_goes_on_to_the_same_weights(name, classifier, data, tmp_path):
    settings = {"epochs": 3, "method": METHODS[name](BALL), "seed": 5}
    whole = training.further(classifier, data, **settings)

    class Killed(NoProgress):
        epochs = 0

        def advance(self, n=1, **postfix):
            self.epochs += "epoch" in postfix
            if self.epochs == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.further(classifier, data, **settings, resume=tmp_path, progress=Killed())
    assert (tmp_path / FILE).is_file()
    assert training.further(classifier, data, **settings, resume=tmp_path).digest() == whole.digest()


def test_clean_and_attacked_images_have_batch_norms_of_their_own(classifier, data):
    """Trained in the same way, the two choices differ in BatchNorm alone; the network's modules are as they were."""
    kept = {
        test: training.further(
            classifier, data, epochs=1, keep="last", seed=3, method=DualNormTraining(BALL, test=test)
        )
        for test in ("clean", "attacked")
    }
    weights = {test: one.net.state_dict() for test, one in kept.items()}
    assert list(weights["clean"]) == list(weights["attacked"]) == list(classifier.net.state_dict())
    norms = {n for n, m in classifier.net.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    for name, value in weights["clean"].items():
        of_norm = name.rpartition(".")[0] in norms and not name.endswith("num_batches_tracked")
        assert torch.equal(value, weights["attacked"][name]) != of_norm, name


def test_each_set_sees_its_own_images_only():
    net = torch.nn.Sequential(torch.nn.BatchNorm2d(1, momentum=1.0))
    DualNormTraining(BALL).prepare(net)
    net.train()
    with using(net, "clean"):
        net(torch.full((4, 1, 2, 2), 0.25))
    with using(net, "attacked"):
        net(torch.full((4, 1, 2, 2), 0.75))
    assert float(net[0].clean.running_mean) == 0.25
    assert float(net[0].attacked.running_mean) == 0.75
    assert net[0].active == "attacked"
    DualNormTraining(BALL).finish(net)
    assert type(net[0]) is torch.nn.BatchNorm2d
    assert float(net[0].running_mean) == 0.75


def test_a_network_without_batch_norm_is_refused(data):
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 2))
    classifier = mr.Classifier(net, data.classes, outputs="logits")
    with pytest.raises(InputError, match="Sequential has none: choose --method pgd"):
        training.further(classifier, data, epochs=1, method=DualNormTraining(BALL))


def test_minutes_are_kept_and_the_schedule_is_that_of_the_first_trial(classifier, data, tmp_path):
    began = time.monotonic()
    after = training.further(classifier, data, epochs=10_000, method=PGDTraining(BALL), minutes=0.05, resume=tmp_path)
    assert time.monotonic() - began < 6  # 3 s, and the trial
    planned = json.loads((tmp_path / "pace.json").read_text())["epochs"]
    assert after.provenance["further"][-1]["training"]["epochs"] == planned < 10_000
    with pytest.raises(InputError, match="one epoch takes about"):
        training.further(classifier, data, method=PGDTraining(BALL), minutes=1e-6)


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("pgd", {"steps": 0}, "steps must be a whole number"),
        ("pgd", {"step": 0.0}, "step must be a positive"),
        ("pgd", {"awp": 1.0}, "awp must be a share"),
        ("trades", {"beta": 0.0}, "beta must be a positive"),
        ("mart", {"beta": -1.0}, "beta must be a positive"),
        ("dual", {"test": "both"}, "test must be clean or attacked"),
    ],
)
def test_wrong_settings_are_refused(name, wrong, said):
    with pytest.raises(InputError, match=said):
        METHODS[name](BALL, **wrong)
