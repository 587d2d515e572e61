"""The only grader: float32 and after saving, legal or not, one logit to many findings."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr

from .nets import Linear, grey, linear

LEVEL = 1 / 255


def brightness(threshold: float) -> mr.Classifier:
    """Says class 1 exactly where the mean pixel is above ``threshold``; one 8-bit level is worth 1000 logits."""
    pixels = 36
    weight = torch.stack([torch.zeros(pixels), torch.full((pixels,), 255_000 / pixels)]).double()
    bias = torch.tensor([0.0, -255_000 * threshold]).double()
    net = Linear(weight, bias)
    net.forward = lambda x: x.double().flatten(1) @ net.weight.T + net.bias
    return mr.Classifier(net, ("dark", "bright"), channels=1)


def flat(*levels: float) -> torch.Tensor:
    """Images of one grey each, in 8-bit levels."""
    return (torch.tensor(levels) / 255).view(-1, 1, 1, 1).expand(-1, 1, 6, 6).clone()


def judged(clf, clean, attacked, eps=LEVEL, label=0, **options):
    goal = mr.Untargeted(torch.full((len(clean),), label))
    return mr.judge(clf, clean, attacked, goal, mr.Linf(eps), **options)


def test_a_success_below_half_a_grey_level_does_not_survive_8_bits_and_is_said_to():
    clf = brightness(100.2 / 255)
    clean, attacked = flat(100), flat(100.4)
    eight = judged(clf, clean, attacked)
    assert eight.before.tolist() == [0]
    assert eight.after.tolist() == [1]
    assert eight.reached.all()
    assert eight.after_saving.tolist() == [0]
    assert not eight.survives.any()
    assert float(eight.size[0]) == pytest.approx(0.4 * LEVEL, rel=1e-4)
    assert float(eight.size_saved[0]) == 0
    assert (eight.accuracy.value, eight.accuracy_saved.value) == (0, 1)
    for bits in (12, 16):
        deep = judged(clf, clean, attacked, bits=bits)
        assert deep.survives.all()
        assert float(deep.size_saved[0]) == pytest.approx(0.4 * LEVEL, abs=0.51 / (2**bits - 1))


def test_saving_rounds_and_never_truncates():
    """torchattacks makes 100.9 a 100; it is 101, and the attack survives."""
    outcome = judged(brightness(100.7 / 255), flat(100), flat(100.9))
    assert outcome.survives.all()
    assert float(outcome.size_saved[0]) == pytest.approx(LEVEL, rel=1e-4)


def test_rounding_may_also_push_an_image_over_the_boundary():
    outcome = judged(brightness(100.7 / 255), flat(100), flat(100.6))
    assert not outcome.reached.any()
    assert outcome.survives.all()


def test_what_is_illegal_never_counts_whatever_it_does():
    clf = brightness(100.2 / 255)
    clean = flat(100, 100, 100, 100, 100)
    attacked = flat(101, 103, 100.5, 100.5, 100.5)
    attacked[2, 0, 0, 0] = torch.nan
    attacked[3, 0, 0, 0] = 1.0001
    attacked[4, 0, 0, 0] = torch.inf
    outcome = judged(clf, clean, attacked)
    assert outcome.legal.tolist() == [True, False, False, False, False]
    assert outcome.reached.tolist() == [True, False, False, False, False]
    assert not outcome.survives[1:].any()
    assert outcome.accuracy.value == 0.8
    below = judged(brightness(0.5 * LEVEL), flat(1, 1), flat(0, -0.5), eps=2 * LEVEL, label=1)
    assert below.reached.tolist() == [True, False]


def test_success_is_among_the_images_that_were_right():
    clf = brightness(100.2 / 255)
    clean = flat(100, 100, 100, 150)
    outcome = judged(clf, clean, flat(100.5, 100, 100, 150))
    assert outcome.reached_before.tolist() == [False, False, False, True]
    assert (outcome.success.value, outcome.success.n) == (pytest.approx(1 / 3), 3)
    assert (outcome.accuracy.value, outcome.accuracy.n) == (0.5, 4)


def test_images_of_one_patient_widen_the_interval():
    clf = brightness(100.2 / 255)
    clean = flat(*[100] * 24)
    attacked = flat(*([100.5] * 12 + [100] * 12))
    alone = judged(clf, clean, attacked).accuracy
    patients = [f"p{i // 4}" for i in range(24)]
    together = judged(clf, clean, attacked, groups=patients)
    assert together.accuracy.value == alone.value == 0.5
    assert together.accuracy.n == 24
    assert together.accuracy.low < alone.low - 0.05
    assert together.accuracy.high > alone.high + 0.05
    assert together.success.high - together.success.low > 1.3 * (alone.high - alone.low)


class Undefined(nn.Module):
    """No number for bright images."""

    def forward(self, x):
        m = x.mean((1, 2, 3))
        z = torch.where(m > 0.4, torch.nan, 3 - m)
        return torch.stack([z, -z], 1)


@pytest.mark.filterwarnings("ignore:The network's outputs are NaN or infinite")
@pytest.mark.parametrize(
    "goal", [mr.Untargeted(torch.tensor([0, 1])), mr.Targeted(0), mr.Targeted(1)], ids=["untargeted", "to-0", "to-1"]
)
def test_logits_that_are_no_number_are_never_a_success(goal):
    clf = mr.Classifier(Undefined(), ("a", "b"), channels=1)
    outcome = mr.judge(clf, flat(90, 90), flat(120, 120), goal, mr.Linf(0.2))
    assert outcome.legal.all()
    assert not outcome.reached.any()
    assert not outcome.survives.any()


def test_the_judge_s_sizes_are_the_ball_s():
    clf, clean = linear(2), grey(5)
    attacked = (clean + 0.02 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    goal = mr.Untargeted(clf.predict(clean))
    for norm in (mr.Linf, mr.L2):
        ball = norm(1.0)
        outcome = mr.judge(clf, clean, attacked, goal, ball)
        assert torch.equal(outcome.size, ball.size(attacked - clean))
        assert torch.equal(outcome.after, clf.predict(attacked))
        p = clf.probabilities(attacked)
        torch.testing.assert_close(outcome.confidence_after, p.amax(1))


def test_confidence_is_the_probability_and_the_decision_is_at_the_operating_point():
    plain = linear(2, scale=2.0)
    clf = mr.Classifier(plain.net, plain.classes, channels=1, threshold=0.9)
    images = grey(40, spread=0.2)
    outcome = mr.judge(clf, images, images, mr.Untargeted(torch.zeros(40, dtype=torch.long)), mr.Linf(0.0))
    p = plain.probabilities(images)
    between = (p[:, 1] > 0.5) & (p[:, 1] < 0.9)
    assert between.any()
    assert (outcome.before[between] == 0).all()
    torch.testing.assert_close(outcome.confidence_before[between], p[between, 0])


def test_findings_are_judged_as_a_set():
    clf, images = mr.Classifier(linear(4).net, list("abcd"), head="multilabel"), grey(12, spread=0.2)
    labels = clf.predict(images)
    other = labels.clone()
    other[3, 2] = 1 - other[3, 2]
    outcome = mr.judge(clf, images, images, mr.Untargeted(other), mr.Linf(0.0))
    assert outcome.reached.nonzero().tolist() == [[3]]
    assert outcome.before.shape == (12, 4)
    p = clf.probabilities(images)
    torch.testing.assert_close(outcome.confidence_before, torch.where(labels == 1, p, 1 - p).amin(1))
    assert torch.equal(mr.judge(clf, images, images, mr.Targeted(1), mr.Linf(0.0)).reached, labels[:, 1] == 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"attacked": grey(3)}, r"shape \(3, 1, 6, 6\), the clean ones \(4, 1, 6, 6\)"),
        ({"attacked": grey(4, side=5)}, "attacked images have shape"),
        ({"images": grey(4) * 255}, "lie in"),
        ({"goal": mr.Untargeted(torch.zeros(3, dtype=torch.long))}, "4 images but labels of shape"),
        ({"goal": mr.Untargeted(torch.tensor([0, 1, 2, 0]))}, r"labels must lie in 0\.\.1"),
        ({"goal": mr.Untargeted(torch.zeros(4))}, "labels must be int64"),
        ({"goal": mr.Untargeted()}, "needs labels"),
        ({"goal": mr.Targeted(2)}, "target class 2 does not exist"),
        ({"goal": mr.Targeted(torch.tensor([0, 1]))}, "one target, or one an image"),
        ({"bits": 0}, "bits must be between 1 and 16"),
    ],
)
def test_what_does_not_fit_is_refused(change, said):
    images = grey(4)
    asked = {"images": images, "attacked": images, "goal": mr.Untargeted(torch.zeros(4, dtype=torch.long)), "bits": 8}
    asked |= change
    with pytest.raises(mr.InputError, match=said):
        mr.judge(linear(2), asked["images"], asked["attacked"], asked["goal"], mr.Linf(0.1), bits=asked["bits"])
