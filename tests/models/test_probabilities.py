"""Networks that return probabilities: decided as they decide, attacked as the logits behind them."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import medrobust as mr

from ..nets import Bumpy, grey

GAIN = 100.0


class Around(nn.Module):
    """``after`` applied to the logits of a small network; its logits are known to the test alone."""

    def __init__(self, after, outputs: int = 3, gain: float = 1.0) -> None:
        super().__init__()
        self.inner, self.after, self.gain = Bumpy(outputs, gain=3.0), after, gain

    def logits(self, x):
        return self.gain * self.inner(x)

    def forward(self, x):
        return self.after(self.logits(x))


def mean_of_two(z):
    return (z.softmax(1) + (0.7 * z + 0.1).softmax(1)) / 2


def calibrated(z):
    """Piecewise linear, as torchxrayvision moves an operating point to 0.5."""
    p, t = torch.sigmoid(z), 0.3
    return torch.where(p < t, p / (2 * t), 1 - (1 - p) / (2 * (1 - t)))


CASES = {
    "softmax": ("softmax", 3, lambda z: z.softmax(1), 1.0),
    "softmax, sure of itself": ("softmax", 3, lambda z: nn.Softmax(1)(z), GAIN),
    "softmax, rounded from double": ("softmax", 3, lambda z: z.double().softmax(1).float(), 1.0),
    "sigmoid of two classes": ("logit", 1, torch.sigmoid, 1.0),
    "sigmoid without its axis": ("logit", 1, lambda z: nn.Sigmoid()(z)[:, 0], GAIN),
    "p and 1 - p": ("softmax", 1, lambda z: torch.cat([1 - z.sigmoid(), z.sigmoid()], 1), GAIN),
    "a sigmoid a class": ("softmax", 3, lambda z: z.sigmoid(), GAIN),
    "clamped": ("softmax", 3, lambda z: z.softmax(1).clamp(0.01, 0.99), GAIN),
    "mean of an ensemble": ("softmax", 3, mean_of_two, GAIN),
    "findings": ("multilabel", 3, lambda z: z.sigmoid(), GAIN),
    "findings, calibrated": ("multilabel", 3, calibrated, 1.0),
    "findings, calibrated and sure": ("multilabel", 3, calibrated, GAIN),
    "findings, clamped": ("multilabel", 3, lambda z: torch.clip(z.sigmoid(), 0.01, 0.99), 5.0),
    "findings, a dictionary": (
        "multilabel",
        3,
        lambda z: {"pred": z.sigmoid(), "features": z.new_zeros(len(z), 7)},
        1.0,
    ),
}


@pytest.fixture(params=CASES)
def case(request):
    head, outputs, after, gain = CASES[request.param]
    net = Around(after, outputs, gain).eval()
    classes = "abc" if outputs == 3 else "ab"
    return mr.Classifier(net, classes, head=head, channels=1, outputs="probabilities"), net


def stated(clf, net, images):
    """The product's own decisions."""
    with torch.no_grad():
        p = net(images)
    p = p["pred"] if isinstance(p, dict) else p
    if clf.head.name == "softmax":
        return p.argmax(1)
    return (p > 0.5).long().flatten() if clf.head.name == "logit" else (p > 0.5).long()


def test_decisions_are_the_products_own(case):
    clf, net = case
    images = torch.rand(200, 1, 12, 12, generator=torch.Generator().manual_seed(1))
    assert torch.equal(clf.predict(images), stated(clf, net, images))
    assert torch.isfinite(clf.logits(images)).all()


def test_gradients_are_alive_and_point_as_those_of_the_logits(case):
    """The gradient of the gap is finite and not zero for every image, where the network's own is 0 for many."""
    clf, _ = case
    images = torch.rand(40, 1, 12, 12, generator=torch.Generator().manual_seed(2)).requires_grad_()
    labels = clf.predict(images.detach())
    gap = clf.head.gap(clf(images), labels)
    (gradient,) = torch.autograd.grad(gap.sum(), images)
    assert torch.isfinite(gradient).all()
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("name", ["softmax", "softmax, sure of itself", "sigmoid of two classes", "findings"])
def test_a_last_sigmoid_or_softmax_is_read_exactly(name):
    head, outputs, after, gain = CASES[name]
    net = Around(after, outputs, gain).eval()
    classes = "abc"[: max(outputs, 2)]
    bare = Around(lambda z: z, outputs, gain).eval()
    bare.load_state_dict(net.state_dict())
    images = grey(20, spread=0.4)
    read = mr.Classifier(net, classes, head=head, channels=1, outputs="probabilities").logits(images)
    torch.testing.assert_close(
        read, mr.Classifier(bare, classes, head=head, channels=1, outputs="logits").logits(images)
    )


def test_an_attack_on_probabilities_is_the_attack_on_the_logits():
    """PGD through a saturated softmax leaves as many as PGD on the logits; on probabilities as logits it cannot."""
    net, bare = Around(lambda z: z.softmax(1), 3, GAIN).eval(), Around(lambda z: z, 3, GAIN).eval()
    bare.load_state_dict(net.state_dict())
    images = torch.rand(16, 1, 12, 12, generator=torch.Generator().manual_seed(3))
    left = []
    for network, outputs in ((net, "probabilities"), (bare, "logits")):
        clf = mr.Classifier(network, "abc", channels=1, outputs=outputs)
        labels = clf.predict(images)
        result = mr.attacks.run(mr.attacks.PGD(), clf, images, mr.threat.Untargeted(labels), mr.threat.Linf(2 / 255))
        left.append(result.reached.tolist())
    assert left[0] == left[1]
    assert any(left[0])


def test_outputs_that_are_no_probabilities_are_refused():
    clf = mr.Classifier(Bumpy(3).eval(), "abc", channels=1, outputs="probabilities")
    with pytest.raises(mr.InputError, match="are no probabilities: leave out --outputs probabilities"):
        clf.predict(grey(5, spread=0.4))


def test_torchscript_is_inverted():
    """No operation can be watched inside: in float64 the odds are still told."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = torch.jit.trace(nn.Sequential(Around(lambda z: z, 3, 5.0), nn.Softmax(1)).eval(), grey(2))
    images = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(4))
    clf = mr.Classifier(net, "abc", channels=1, outputs="probabilities")
    with torch.no_grad():
        assert torch.equal(clf.predict(images), net(images).argmax(1))
    x = images[:10].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(clf.head.gap(clf(x), clf.predict(images[:10])).sum(), x)
    assert (gradient.flatten(1).abs().amax(1) > 0).all()


def test_the_fast_copy_decides_alike():
    net = Around(lambda z: z.softmax(1), 3, GAIN).eval()
    clf = mr.Classifier(net, "abc", channels=1, outputs="probabilities")
    images = torch.rand(50, 1, 12, 12, generator=torch.Generator().manual_seed(5))
    expected = clf.logits(images)
    fast = clf.fast(images.shape)
    assert fast is not clf
    torch.testing.assert_close(fast.logits(images), expected, rtol=1e-3, atol=1e-3)


def test_a_model_whose_outputs_are_said_to_be_probabilities_has_another_digest():
    net = Around(lambda z: z.softmax(1)).eval()
    assert (
        mr.Classifier(net, "abc", channels=1, outputs="probabilities").digest()
        != mr.Classifier(net, "abc", channels=1, outputs="logits").digest()
    )
