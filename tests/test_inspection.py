"""The first look at a network: each as users bring them works, or is refused in one line."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust import attacks
from medrobust.attacks.derivative import hidden
from medrobust.threat import Linf, Untargeted

from .vendor_nets import CLASSES, DOUBTFUL, SIDE, UNUSABLE, USABLE, Around, Small, frozen, reference, scripted

IMAGES = torch.rand(8, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", USABLE)
def test_a_network_as_users_bring_it_gives_the_answers_of_the_function_it_computes(name):
    make, distance, words = USABLE[name]
    classifier = mr.Classifier(make(), CLASSES)
    found = classifier.examine(IMAGES)
    text = " ".join(found.sentences)
    assert all(word in text for word in words)
    assert bool(found.sentences) == bool(words)
    with torch.no_grad():
        truth = reference()(IMAGES)
    scale = float(truth.abs().max())
    assert float((classifier.logits(IMAGES) - truth).abs().max()) <= distance * scale
    assert classifier.logits(IMAGES).dtype == torch.float32
    assert torch.equal(classifier.logits(IMAGES[:1]), classifier.logits(IMAGES)[:1])
    if found.differentiable and not isinstance(classifier.net, torch.jit.ScriptModule):
        images = IMAGES.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(classifier(images)[:, 0].sum(), images)
        assert float(gradient.abs().sum()) > 0


@pytest.mark.parametrize("name", ["freeze", "half", "model output", "one image at a time", "quantised"])
def test_it_can_be_attacked_and_its_fast_copy_agrees(name):
    classifier = mr.Classifier(USABLE[name][0](), CLASSES)
    labels = classifier.examine(IMAGES) and classifier.predict(IMAGES)
    done = attacks.run(attacks.PGD(steps=3), classifier, IMAGES[:4], Untargeted(labels[:4]), Linf(0.1))
    outcome = mr.judge(classifier, IMAGES[:4], done.images, Untargeted(labels[:4]), Linf(0.1))
    assert len(done.images) == 4
    assert torch.equal(done.reached, outcome.reached)
    for other in hidden(classifier).values():
        assert torch.isfinite(other.logits(IMAGES)).all()
    fast = classifier.fast(IMAGES.shape)
    torch.testing.assert_close(fast.logits(IMAGES), classifier.logits(IMAGES), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["plain", "script", "freeze", "quantised", "quantised dynamically", "bfloat16"])
def test_a_digest_tells_any_two_networks_apart_and_is_the_same_for_the_same(name):
    one, same = (mr.Classifier(USABLE[name][0](), CLASSES) for _ in range(2))
    assert one.digest() == same.digest()
    with torch.random.fork_rng():
        torch.manual_seed(5)
        other = Small()
        nn.init.normal_(other.conv.weight)
    if name in ("script", "freeze"):
        other = {"script": scripted, "freeze": frozen}[name](other)
        assert mr.Classifier(other, CLASSES).digest() != one.digest()


@pytest.mark.parametrize("name", DOUBTFUL)
def test_what_limits_every_number_is_said_once_and_where_the_classifier_first_sees_images(name):
    make, words = DOUBTFUL[name]
    found = mr.Classifier(make(), CLASSES).examine(IMAGES)
    assert len(found.doubts) == 1
    assert words in found.doubts[0]
    classifier = mr.Classifier(make(), CLASSES)
    with pytest.warns(UserWarning, match=words) as caught:
        answers = [classifier.predict(IMAGES) for _ in range(2)]
    assert len(caught) == 1
    assert len(answers[0]) == len(IMAGES)


@pytest.mark.parametrize("name", ["BatchNorm without statistics", "batch taken for tokens"])
def test_an_image_s_answer_is_the_one_it_gets_alone(name):
    net = DOUBTFUL[name][0]()
    classifier = mr.Classifier(net, CLASSES)
    classifier.examine(IMAGES)
    with torch.no_grad(), classifier.borrowed():
        alone = torch.cat([net(image) for image in IMAGES.split(1)])
    assert torch.equal(classifier.logits(IMAGES), alone)
    assert torch.equal(classifier(IMAGES), alone)


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_network_that_cannot_be_used_is_one_line(name):
    make, words = UNUSABLE[name]
    with pytest.raises(mr.InputError) as caught:
        mr.Classifier(make(), CLASSES).examine(IMAGES)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_batchnorm_of_single_values_cannot_be_computed_alone_and_the_reason_is_given():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3), nn.BatchNorm1d(3, affine=False))
    net[-1].track_running_stats, net[-1].running_mean, net[-1].running_var = False, None, None
    with pytest.raises(mr.InputError, match=r"depends on the other images.*cannot compute one image alone"):
        mr.Classifier(net, CLASSES).examine(IMAGES)


def test_a_gradient_that_cannot_be_computed_is_one_line():
    class Back(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise NotImplementedError("no derivative\nof this layer")

    with pytest.raises(mr.InputError, match=r"gradient cannot be computed: NotImplementedError: no derivative$"):
        mr.Classifier(Around(before=Back.apply), CLASSES).examine(IMAGES)


def test_grey_images_into_a_network_for_colour_that_hides_its_convolution():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused, self.inner = nn.Conv2d(1, 2, 3), Small(channels=3)

        def forward(self, x):
            return self.inner(x)

    net = Late().eval()
    classifier = mr.Classifier(net, CLASSES)
    assert "first convolution that runs takes 3" in classifier.examine(IMAGES).notes[0]
    assert classifier.channels == 3
    with torch.no_grad():
        torch.testing.assert_close(classifier.logits(IMAGES), net(IMAGES.expand(-1, 3, -1, -1)))


def test_lazy_layers_are_asked_to_be_run_first():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(mr.InputError, match="lazy layers without weights"):
        mr.Classifier(net, CLASSES)
    net(IMAGES)
    assert mr.Classifier(net, CLASSES).logits(IMAGES).shape == (8, 3)


def test_inspecting_draws_nothing_from_the_caller_s_generator_and_leaves_the_network_as_it_was():
    net = DOUBTFUL["random"][0]().train()
    state, weights = torch.get_rng_state(), [p.clone() for p in net.state_dict().values()]
    mr.Classifier(net, CLASSES).examine(IMAGES)
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert all(torch.equal(a, b) for a, b in zip(weights, net.state_dict().values(), strict=True))


def test_a_normalisation_by_255_is_seen_as_one_answer_for_all():
    """Inputs that are a constant shift away from training saturate nothing, dead networks do."""
    dead = Around(before=lambda x: x * 0)
    assert "same outputs for all 8 images" in mr.Classifier(dead, CLASSES).examine(IMAGES).doubts[0]
