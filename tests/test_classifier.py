"""The classifier: normalisation, channels, head, operating point, and the caller's network left alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust import models

from .nets import Linear, bumpy, grey, linear


class Keeps(nn.Module):
    """Remembers what it was given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        self.given = x
        return self.inner(x)


def test_the_network_sees_normalised_pixels_and_the_caller_gives_plain_ones():
    inner = linear(3, channels=3).net
    net = Keeps(inner)
    clf = mr.Classifier(net, "abc", mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5), channels=3)
    images = grey(4, channels=3)
    logits = clf(images)
    for c, (m, s) in enumerate(zip(clf.mean, clf.std, strict=True)):
        torch.testing.assert_close(net.given[:, c], (images[:, c] - m) / s)
    assert torch.equal(logits, inner(net.given))


def test_one_channel_is_repeated_and_its_gradient_is_summed_back():
    net = linear(2, channels=3).net
    clf = mr.Classifier(net, ("a", "b"), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), channels=3)
    one = grey(3).requires_grad_()
    three = one.detach().expand(-1, 3, -1, -1).clone().requires_grad_()
    a, b = clf(one), clf(three)
    assert torch.equal(a, b)
    (g,) = torch.autograd.grad(a[:, 0].sum(), one)
    (h,) = torch.autograd.grad(b[:, 0].sum(), three)
    torch.testing.assert_close(g, h.sum(1, keepdim=True))


def test_one_logit_is_the_two_logit_model_of_minus_and_plus_half():
    weight, bias = torch.randn(1, 36, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2])
    one = mr.Classifier(Linear(weight, bias), ("no", "yes"), head="logit", channels=1)
    two = mr.Classifier(Linear(torch.cat([-weight / 2, weight / 2]), torch.cat([-bias / 2, bias / 2])), ("no", "yes"))
    images = grey(9, spread=0.2)
    torch.testing.assert_close(one.logits(images), two.logits(images))
    assert torch.equal(one.predict(images), two.predict(images))
    z = one.net(images)[:, 0]
    torch.testing.assert_close(one.probabilities(images)[:, 1], z.sigmoid())
    assert torch.equal(one.predict(images), (z > 0).long())


def ends(layer: nn.Module, outputs: int = 2) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, outputs), layer)


def apart() -> nn.Module:
    """A last layer whose logits leave [0, 1] whatever comes in."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, -1.0], [-1.0, 3.0]]))
        layer.bias.fill_(-2.0)
    return layer


class ByHand(nn.Module):
    """p and 1 - p, as binary models in the wild give them."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(36, 1)

    def forward(self, x):
        p = torch.clamp(self.body(x.flatten(1)) * 0.01 + 0.5, 0, 1)
        return torch.cat([p, 1 - p], 1)


class Reshaped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x).view(-1, 1, 1).squeeze(-1)


@pytest.mark.parametrize(
    ("net", "head"),
    [
        (ends(nn.Softmax(1)), "softmax"),
        (ends(nn.Sigmoid(), 1), "logit"),
        (ends(nn.Sigmoid()), "softmax"),
        (ends(nn.Sigmoid()), "multilabel"),
        (ByHand(), "softmax"),
        (Reshaped(ends(nn.Sigmoid(), 1)), "logit"),
    ],
    ids=["softmax", "one-sigmoid", "two-sigmoids", "multi-label", "p-and-1-p", "sigmoid-reshaped"],
)
@pytest.mark.parametrize("gradients", [True, False])
def test_probabilities_are_refused(net, head, gradients):
    clf = mr.Classifier(net, ("a", "b"), head=head, channels=1)
    with torch.set_grad_enabled(gradients), pytest.raises(mr.InputError, match="probabilities already"):
        clf(grey(5))
    with pytest.raises(mr.InputError, match="without its last softmax"):
        clf.predict(grey(1))


@pytest.mark.parametrize(
    ("net", "head"),
    [(ends(nn.LogSoftmax(1)), "softmax"), (nn.Sequential(ends(nn.Sigmoid()), apart()), "softmax")],
    ids=["log-softmax", "sigmoid-inside"],
)
def test_logits_of_any_origin_are_taken(net, head):
    logits = mr.Classifier(net, ("a", "b"), head=head, channels=1).logits(grey(5))
    assert logits.shape == (5, 2)


@pytest.mark.parametrize(("outputs", "head"), [(2, "softmax"), (1, "logit"), (2, "multilabel")])
def test_outputs_within_0_and_1_are_probabilities_until_the_user_says_otherwise(outputs, head):
    net, images = ends(nn.Hardtanh(0.2, 0.7), outputs), grey(5)
    with torch.no_grad():
        net[1].weight.mul_(0.1)
        net[1].bias.fill_(0.45)
    with pytest.raises(mr.InputError, match=r"--outputs logits \(in Python outputs=\"logits\"\)"):
        mr.Classifier(net, ("a", "b"), head=head, channels=1).logits(images)
    said = mr.Classifier(net, ("a", "b"), head=head, channels=1, outputs="logits")
    torch.testing.assert_close(said.head.probabilities(said.logits(images)), said.probabilities(images))
    with pytest.raises(mr.InputError, match="outputs must be"):
        mr.Classifier(net, ("a", "b"), head=head, channels=1, outputs="odds")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(value):
    net = bumpy().net
    with torch.no_grad():
        net.body[4].weight[0, 0, 0, 0] = value
    with pytest.raises(mr.InputError, match=r"NaN or infinity in 'body\.4\.weight'"):
        mr.Classifier(net, "abc")
    net = bumpy().net
    net.body[1].running_var[2] = value
    with pytest.raises(mr.InputError, match=r"'body\.1\.running_var'"):
        mr.Classifier(net, "abc")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: mr.Classifier(linear(2).net, ("a", "b", "c")).logits(grey(2)), "gives 2 output.s. an image.*needs 3"),
        (lambda: mr.Classifier(linear(2).net, ("a", "b"), head="logit").logits(grey(2)), "needs 1"),
        (lambda: bumpy(channels=1).logits(grey(2, 16, 3)), r"takes 1 channel.*have 3.*channels=1"),
        (lambda: mr.Classifier(bumpy().net, "abc", size=16).logits(grey(2, 12)), "takes 16 x 16.*12 x 12.*size=16"),
        (lambda: linear().logits(grey(2) * 255), r"lie in \[0, 1\].*normalised already"),
        (lambda: linear().logits(grey(2) - 0.7), r"lie in \[0, 1\]"),
        (lambda: linear().logits(torch.full((1, 1, 6, 6), torch.nan)), r"lie in \[0, 1\]"),
        (lambda: linear().logits((grey(2) * 255).to(torch.uint8)), "divide 8-bit images by 255"),
        (lambda: mr.Classifier(linear().net, ["one"]), "at least two classes"),
        (lambda: mr.Classifier(linear().net, "ab", head="sigmoid"), "softmax, logit, multilabel"),
        (lambda: mr.Classifier(linear(3).net, "abc", head="logit"), "two classes, got 3"),
        (lambda: mr.Classifier(lambda x: x, "ab"), "torch.nn.Module, got function"),
        (lambda: mr.Classifier(linear().net, "ab", std=(0.0,)), "std must be positive"),
        (lambda: mr.Classifier(linear().net, "ab", mean=0.5), "lists, a number a channel"),
        (lambda: mr.Classifier(linear().net, "ab", mean=(123.7,), std=(58.4,)), "divide them by 255"),
        (lambda: mr.Classifier(linear().net, "ab", mean=(float("nan"),)), "mean must be finite"),
        (lambda: mr.Classifier(bumpy().net, "abc", mean=(0.5, 0.5, 0.5)), "mean has 3 values for a network of 1"),
        (lambda: mr.Classifier(linear().net, "ab", threshold=1.5), "between 0 and 1, got 1.5"),
        (lambda: mr.Classifier(linear(3).net, "abc", threshold=0.2), "exactly two classes"),
        (lambda: mr.Classifier(nn.Sequential(nn.Flatten(), Pair()), "ab").logits(grey(2)), "one tensor of logits"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line_with_the_mend(make, said):
    with pytest.raises(mr.InputError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


class Pair(nn.Module):
    def forward(self, x):
        return x[:, :2], x[:, 2:4]


@pytest.mark.parametrize("head", ["softmax", "logit"])
def test_a_threshold_moves_decisions_and_never_probabilities(head):
    plain = linear(2, head=head, scale=2.0)
    images = grey(60, spread=0.2)
    p = plain.probabilities(images)
    for threshold in (0.1, 0.5, 0.9):
        clf = mr.Classifier(plain.net, plain.classes, head=head, channels=1, threshold=threshold)
        torch.testing.assert_close(clf.probabilities(images), p)
        assert torch.equal(clf.predict(images), (p[:, 1] > threshold).long())
        # an attack sees the boundary that is used: the margin is 0 there
        gap = clf.logits(images).diff(dim=1)[:, 0]
        assert torch.equal(gap > 0, p[:, 1] > threshold)
    assert 0 < (p[:, 1] > 0.9).sum() < (p[:, 1] > 0.1).sum() < 60


def test_the_network_is_left_as_it_was_found_whatever_happens():
    clf = bumpy()
    net = clf.net.train()
    net.body[1].eval()
    net.body[4].bias.requires_grad_(False)
    state = {k: v.clone() for k, v in net.state_dict().items()}

    def found():
        return [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]

    before = found()
    images = torch.rand(5, 1, 16, 16)
    clf.predict(images)
    with clf.borrowed():
        assert not any(m.training for m in net.modules())
        with clf.borrowed():
            clf(images)
        assert not any(p.requires_grad for p in net.parameters())
    assert found() == before
    with pytest.raises(mr.InputError):
        clf.logits(torch.rand(2, 3, 16, 16))
    with pytest.raises(RuntimeError), clf.borrowed():
        raise RuntimeError
    assert found() == before
    clf.try_narrow(images.shape)
    assert found() == before
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())


def test_dropout_and_batchnorm_are_switched_off_while_it_computes():
    clf = bumpy()
    images = torch.rand(6, 1, 16, 16)
    still = clf.logits(images)
    clf.net.train()
    assert torch.equal(clf.logits(images), still)


@pytest.mark.parametrize("batch_size", [None, 4])
def test_logits_do_not_depend_on_the_batch_to_the_bit(batch_size):
    made = bumpy()
    clf = mr.Classifier(made.net, made.classes, batch_size=batch_size)
    images = torch.rand(23, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    together = clf.logits(images)
    assert torch.equal(torch.cat([clf.logits(i[None]) for i in images]), together)
    assert torch.equal(clf.logits(images.flip(0)).flip(0), together)
    assert torch.equal(torch.cat([clf.logits(x) for x in images.split(7)]), together)
    assert clf.logits(images[:0]).shape == (0, 3)


def test_a_saved_classifier_comes_back_the_same(tmp_path):
    torch.manual_seed(0)
    net = models.build("small_cnn", classes=2, channels=1, size=16)
    clf = mr.Classifier(
        net,
        ("normal", "ill"),
        mean=(0.4,),
        std=(0.2,),
        size=16,
        threshold=0.3,
        provenance={"architecture": "small_cnn", "seed": 5},
    )
    clf.save(tmp_path / "model")
    back = mr.Classifier.load(tmp_path / "model")
    images = torch.rand(7, 1, 16, 16)
    assert torch.equal(back.logits(images), clf.logits(images))
    for name in ("classes", "mean", "std", "size", "channels", "threshold", "provenance"):
        assert getattr(back, name) == getattr(clf, name)
    assert back.head.name == clf.head.name


def test_a_live_network_can_not_be_saved_and_the_mend_is_said(tmp_path):
    with pytest.raises(mr.InputError, match="make it by name, as module:function"):
        bumpy().save(tmp_path / "model")
    assert not (tmp_path / "model").exists()
    with pytest.raises(mr.InputError, match=r"no checkpoint in .*model\.json is missing"):
        mr.Classifier.load(tmp_path)
