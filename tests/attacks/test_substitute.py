"""Attacks go past masked gradients: outputs stay the network's own, the gradient is that of a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medrobust import Classifier
from medrobust.attacks import APGD, PGD, Attack, Auto, run
from medrobust.attacks.auto import ALL
from medrobust.attacks.choose_substitute import CANDIDATES, choose
from medrobust.attacks.straight_through import Secants, StraightThrough, functions_as_identity, without_hooks
from medrobust.attacks.substitute import Substitute
from medrobust.threat import Linf, Untargeted, margin
from tests.defences import DEFENCES, Around, NegatedGradient
from tests.nets import bumpy

EPS = 12 / 255
TRIED = (
    *("8 bit", "3 bit", "JPEG", "k winners take all", "clipped, rounded logits", "hard vote", "detached"),
    *("negated gradient", "random gradient", "random by a function", "stairs for ReLU", "shattered ReLU"),
)
"""One of each kind; ``benchmarks/masked.py`` tries all of them on a trained network."""


@lru_cache
def images() -> Tensor:
    return torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(3))


def around(wrap: Callable[[nn.Module], nn.Module]) -> Classifier:
    whole = bumpy()
    made = Classifier(wrap(whole.net).eval(), whole.classes, channels=1, outputs="logits", batch_size=8)
    made.ready(images()[:8])
    return made


def held(attack: Attack, through: Classifier, judged: Classifier, labels: Tensor) -> Tensor:
    attacked = run(attack, through, images(), Untargeted(labels), Linf(EPS), seed=0).images
    return judged.predict(attacked) == labels


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", TRIED)
def test_a_masked_network_is_broken_as_by_an_attack_that_knows_the_mask(name: str) -> None:
    defended, known = around(DEFENCES[name].wrap), around(DEFENCES[name].known)
    labels = defended.predict(images())
    chosen = choose(defended, images()[:4], labels[:4])[-1].substitute
    through = defended.changed(substitute=chosen)
    attacks = (PGD(12), APGD(12, loss=margin))
    truth, reached = (
        torch.stack([held(attack, way, defended, labels) for attack in attacks]).all(0).float().mean()
        for way in (known, through)
    )
    assert min(truth, reached) < 0.8  # there is something to be found
    assert reached <= truth + 0.15  # two of sixteen images


@pytest.mark.parametrize("substitute", [*CANDIDATES, Substitute(noise=0.1), Substitute(frequencies=2)])
@pytest.mark.parametrize("name", ["16 levels", "JPEG", "hard vote"])
def test_outputs_stay_those_of_the_network_to_the_bit(name: str, substitute: Substitute) -> None:
    defended = around(DEFENCES[name].wrap)
    x = images()[:4].clone().requires_grad_()
    out = defended.changed(substitute=substitute)(x)
    assert torch.equal(out, defended(images()[:4]))
    gradient = torch.autograd.grad(out.sum(), x, allow_unused=True)[0] if out.requires_grad else None
    assert gradient is None or bool(torch.isfinite(gradient).all())


def test_differences_along_all_cosines_are_the_gradient_of_a_linear_network() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    whole = Classifier(net, ["a", "b", "c"], channels=1)
    x = images()[:2, :, :4, :4].clone()
    pull = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 0.0]])
    both = []
    for classifier in (whole, whole.changed(substitute=Substitute(frequencies=4))):
        leaf = x.clone().requires_grad_()
        both.append(torch.autograd.grad(classifier(leaf), leaf, pull)[0])
    torch.testing.assert_close(both[1], both[0], rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_stand_in_that_overflows_leaves_the_outputs_alone() -> None:
    class Overflowing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            steps = torch.round(x.flatten(1)[:, :2]) if not x.requires_grad else x.flatten(1)[:, :2] / 0
            return steps.float()

    whole = Classifier(Overflowing().eval(), ["a", "b"], channels=1, outputs="logits")
    x = images()[:2, :, :4, :4].clone()
    true = whole(x)
    out = whole.changed(substitute=Substitute(hooks=True))(x.clone().requires_grad_())
    assert torch.equal(out, true)


def one_hot(x: Tensor) -> Tensor:
    return F.one_hot(x.flatten(1).argmax(1), x[0].numel()).float()


def without_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        return x * 2


def registered(x: Tensor) -> Tensor:
    y = x * 3
    y.register_hook(torch.neg)
    return y


MASKS: dict[str, tuple[Callable[[Tensor], Tensor], float | None]] = {
    "round": (lambda x: torch.round(x * 8) / 8, 1),
    "method": (lambda x: (x * 8).floor() / 8, 1),
    "divided": (lambda x: torch.div(x, 0.125, rounding_mode="floor") * 0.125, 1),
    "remainder": (lambda x: x - x % 0.125, 1),
    "whole numbers": (lambda x: (x * 8).int().float() / 8, 1),
    "detached": (lambda x: x.detach() * 2, 2),
    "read as numbers": (lambda x: x * float(x.detach().numpy().max()) / x.max().item(), 1),
    "data": (lambda x: x.data * 2, 2),
    "no_grad": (without_grad, 2),
    "hook": (registered, 3),
    "compared": (lambda x: (x > 0.5).float(), None),
    "compared and chosen": (lambda x: torch.where(x > 0.5, 1.0, 0.0), None),
    "compared, not": (lambda x: 1 - (~(x > 0.5)).float(), None),
    "binned": (lambda x: torch.bucketize(x, torch.linspace(0, 1, 9)).float() / 8, None),
    "sign": (lambda x: torch.sign(x - 0.5), None),
}


@pytest.mark.parametrize("name", MASKS)
def test_what_has_no_derivative_gets_that_of_what_it_stands_for(name: str) -> None:
    mask, derivative = MASKS[name]
    x = torch.linspace(0.05, 0.95, 12).view(2, 6).requires_grad_()
    with StraightThrough():
        out = mask(x)
    assert torch.equal(out, mask(x.detach().requires_grad_()))
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert (gradient >= 0).all()
    assert (gradient.amax(1) > 0).all()
    if derivative is not None:
        torch.testing.assert_close(gradient, torch.full_like(x, derivative))


def test_ripples_have_the_slope_of_their_secants() -> None:
    x = torch.linspace(-2, 2, 400).view(2, 200).requires_grad_()
    with Secants():
        out = F.relu(x) + 1e-3 * torch.sin(5e4 * x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    away = x.abs() > 0.5
    torch.testing.assert_close(gradient[away], (x > 0).float()[away], atol=0.02, rtol=0)


@pytest.mark.parametrize("function", [F.relu, F.gelu, torch.tanh, lambda x: x.softmax(1), lambda x: x * x.sum()])
def test_functions_whose_slope_is_right_keep_it(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.linspace(-2, 2, 200).expand(2, 200).clone().requires_grad_()
    (own,) = torch.autograd.grad(function(x)[:, ::3].sum(), x)
    with Secants():
        out = function(x)
    assert torch.equal(torch.autograd.grad(out[:, ::3].sum(), x)[0], own)


def test_the_largest_becomes_a_softmax_on_the_way_back() -> None:
    x = torch.tensor([[0.1, 0.3, 0.2], [0.9, 0.1, 0.0]], requires_grad=True)
    with StraightThrough():
        out = one_hot(x)
    assert torch.equal(out, one_hot(x.detach()))
    (gradient,) = torch.autograd.grad(out[:, 0].sum(), x)
    assert (gradient[:, 0] > 0).all()
    assert (gradient[:, 1:] < 0).all()


def test_hooks_and_functions_are_as_before_afterwards() -> None:
    net = nn.Linear(2, 2)
    net.register_full_backward_hook(lambda module, into, out: tuple(-g for g in into))
    x = torch.ones(1, 2, requires_grad=True)

    def gradient() -> Tensor:
        return torch.autograd.grad(net(NegatedGradient.apply(x)).sum(), x)[0]

    before = gradient()
    with without_hooks(net):
        torch.testing.assert_close(gradient(), -before)
        with functions_as_identity():
            torch.testing.assert_close(gradient(), before)  # both signs are gone
    assert torch.equal(gradient(), before)


def test_only_where_no_stand_in_agrees_a_decision_based_attack_comes_last() -> None:
    whole = around(DEFENCES["detached"].wrap)
    labels = whole.predict(images())
    by = {}
    for agrees in (True, False):
        through = whole.changed(substitute=Substitute(hooks=True, agrees=agrees))  # its gradient is the ramp's
        done = run(Auto(2, 60), through, images(), Untargeted(labels), Linf(EPS), seed=0)
        assert done.by is not None
        by[agrees] = set(done.by.tolist())
    assert ALL.index("rays") not in by[True]
    assert ALL.index("rays") in by[False]


def test_a_blurred_gradient_is_the_blur_of_the_gradient_and_leaves_none_over() -> None:
    whole = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(256, 2)), ["a", "b"], channels=1, outputs="logits")
    x = images()[:1].clone().requires_grad_()
    plain, blurred = (
        torch.autograd.grad(c(x)[0, 0], x)[0] for c in (whole, whole.changed(substitute=Substitute(smooth=True)))
    )
    weights = torch.tensor([0.27, 0.46, 0.27])
    expected = F.conv2d(plain, torch.outer(weights, weights)[None, None])
    torch.testing.assert_close(blurred[..., 1:-1, 1:-1], expected)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_fine_changes_that_are_lost_before_the_first_layer_are_left_out() -> None:
    """A mean over 4 x 4 pixels, outside torch: only smooth changes arrive."""

    def coarse(x: Tensor) -> Tensor:
        return torch.from_numpy(F.interpolate(F.avg_pool2d(x.detach(), 4), scale_factor=4.0).numpy())

    defended = around(lambda net: Around(net, lambda n, x: n(coarse(x))))
    labels = defended.predict(images())
    trials = choose(defended, images()[:8], labels[:8])
    assert any(t.substitute is not None and t.substitute.smooth for t in trials)
    assert trials[-1].fooled == max(t.fooled for t in trials if t.fooled == t.fooled)
