"""Explanations: closed forms, known optima, invariances."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust import explain
from medrobust.attacks import FGSM
from medrobust.explain.hessian import lanczos
from tests.nets import Linear, bumpy, grey, linear

LABELS = torch.tensor([0, 1, 0, 1, 1])


def sure(scale: float) -> mr.Classifier:
    """A linear network that is right about bright images and as sure as ``scale`` says."""
    weight = torch.zeros(2, 36)
    weight[1] = torch.linspace(0, 1, 36)
    return mr.Classifier(Linear(scale * weight, torch.zeros(2)), ("dark", "bright"), channels=1)


# -- gradients and saliency ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "head"), [(1, "softmax"), (3, "softmax"), (3, "logit")])
def test_the_saliency_of_a_linear_model_is_its_weight(channels, head):
    clf = linear(channels=channels, head=head)
    weight = clf.net.weight.detach()
    towards = (weight[1] - weight[0] if head == "softmax" else weight[0]).view(channels, 6, 6)
    wanted = towards.sum(0).abs()
    images = grey(5, channels=channels)
    for name, saliency in explain.SALIENCIES.items():
        if name == "integrated":
            continue
        maps = saliency(clf, images, LABELS, 0, range(5))
        for one in maps:
            torch.testing.assert_close(one / one.sum(), wanted / wanted.sum(), rtol=1e-4, atol=1e-7)
    maps = explain.SALIENCIES["integrated"](clf, images, LABELS, 0, range(5))
    torch.testing.assert_close(maps, (towards * images).sum(1).abs(), rtol=1e-3, atol=1e-4)


def test_lengths_are_those_of_the_cross_entropy():
    clf, images = bumpy(), grey(5, 16, spread=0.2)
    at = images.clone().requires_grad_()
    clf.net.eval()
    loss = nn.functional.cross_entropy(clf.net(at), LABELS, reduction="none")
    (wanted,) = torch.autograd.grad(loss.sum(), at)
    found = explain.loss_gradient(clf, images, LABELS)
    torch.testing.assert_close(found.loss.float(), loss.detach())
    torch.testing.assert_close(found.direction * found.log_scale.exp().float().view(-1, 1, 1, 1), wanted)
    for p in (1, 2):
        torch.testing.assert_close(found.norm(p).float(), wanted.flatten(1).norm(p, 1))
    assert not found.no_gradient.any()


def test_a_network_that_is_sure_to_1e_80_still_has_a_saliency_and_a_slope():
    clf, images = sure(20.0), torch.full((2, 1, 6, 6), 0.52)
    found = explain.loss_gradient(clf, images, torch.tensor([1, 1]))
    assert bool((found.loss < 1e-70).all())
    assert bool((found.loss > 0).all())
    assert not found.no_gradient.any()
    # one minus the probability, times the weight
    torch.testing.assert_close(found.norm(1), found.loss * 20.0 * 18.0, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        explain.gini(explain.gradient_map(clf, images, torch.tensor([1, 1]))[0]),
        explain.gini(torch.linspace(0, 1, 36).view(1, 6, 6)).expand(2),
        rtol=1e-5,
        atol=0,
    )
    smooth = explain.smooth_map(clf, images, torch.tensor([1, 1]))
    assert bool((smooth[:, -1, -1] > 0).all())


def test_integrated_gradients_are_complete():
    clf, images = bumpy(), grey(5, 16, spread=0.3)
    given = explain.integrated_gradients(clf, images, LABELS, steps=128).double().sum((1, 2, 3))
    logits, black = clf.logits(images), clf.logits(torch.zeros_like(images))
    lead = clf.head.gap(logits, LABELS) - clf.head.gap(black, LABELS)
    torch.testing.assert_close(given.float(), lead, rtol=0.02, atol=0.02)


def test_smooth_gradients_without_noise_are_the_gradient():
    clf, images = bumpy(), grey(5, 16, spread=0.2)
    plain, _ = explain.gradient_map(clf, images, LABELS)
    smooth = explain.smooth_map(clf, images, LABELS, sigma=0.0, samples=2)
    torch.testing.assert_close(smooth / smooth.amax((1, 2), True), plain / plain.amax((1, 2), True))


# -- concentration -------------------------------------------------------------------------------------------


def test_concentration_of_one_pixel_and_of_a_flat_map():
    flat, one = torch.full((1, 8, 8), 0.3), torch.zeros(1, 8, 8)
    one[0, 2, 5] = 7.0
    maps = torch.cat([flat, one, torch.zeros(1, 8, 8)])
    gini, half = explain.gini(maps), explain.half_share(maps)
    assert gini[0] == pytest.approx(0, abs=1e-12)
    assert gini[1] == pytest.approx(1 - 1 / 64)
    assert half[0] == pytest.approx(0.5)
    assert half[1] == pytest.approx(1 / 64)
    assert gini[2].isnan()
    assert half[2].isnan()
    torch.testing.assert_close(explain.gini(1e6 * maps[:2]), gini[:2])


# -- simplicity ----------------------------------------------------------------------------------------------


def test_effective_rank_of_an_identity_is_its_size_and_of_a_product_one():
    eye, product = torch.eye(7)[None], torch.rand(4)[None, :, None] * torch.rand(9)[None, None, :]
    assert explain.effective_rank(eye).item() == pytest.approx(7)
    assert explain.effective_rank(3.0 * eye).item() == pytest.approx(7)
    assert explain.effective_rank(product).item() == pytest.approx(1, abs=1e-5)
    assert explain.effective_rank(torch.zeros(1, 3, 3)).isnan().all()


def test_entropies_of_known_maps():
    place = torch.arange(16) / 16
    wave = torch.sin(2 * math.pi * 3 * place).expand(1, 16, 16)
    noise = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    impulse = torch.zeros(1, 16, 16)
    impulse[0, 3, 4] = 1.0
    assert explain.spectral_entropy(wave).item() == pytest.approx(0, abs=1e-6)
    assert explain.spectral_entropy(impulse).item() == pytest.approx(1)
    assert explain.spectral_entropy(noise).item() > 0.9
    assert explain.spectral_entropy(torch.ones(1, 8, 8)).isnan().all()
    assert explain.spatial_entropy(torch.ones(1, 8, 8)).item() == pytest.approx(1)
    assert explain.spatial_entropy(impulse).item() == pytest.approx(0)


def test_simplicity_of_layers_and_names_that_do_not_exist():
    clf, images = bumpy(), grey(5, 16, spread=0.2)
    found = explain.simplicity(clf, images, ("body.0", "body.4"))
    with torch.no_grad():
        out = clf.net.body[0](images)
    torch.testing.assert_close(found["body.0"]["effective-rank"], explain.effective_rank(out.flatten(2)))
    torch.testing.assert_close(explain.layer_maps(clf, images, "body.0"), out.mean(1))
    with pytest.raises(mr.InputError, match=r"no layer 'conv9'; it has penultimate, logits, body, body\.0"):
        explain.simplicity(clf, images, ("conv9",))
    with pytest.raises(mr.InputError, match="no map"):
        explain.simplicity(clf, images, ("body.8",))


# -- landscape and curvature ---------------------------------------------------------------------------------


def test_the_landscape_begins_at_the_clean_loss_and_holds_fgsm_on_its_edge():
    clf, other, images = bumpy(), bumpy(seed=5), grey(5, 16, spread=0.2)
    images[:, :, :4] = 0.0  # a black border: a step out of the box is not taken
    planes = explain.planes(clf, images, LABELS, second=other)
    assert set(planes) == {"random", "second"}

    def loss(some):
        return nn.functional.cross_entropy(clf.logits(some).double(), LABELS, reduction="none")

    for surface in planes.values():
        assert surface.shape == (5, 17, 17)
        torch.testing.assert_close(surface[:, 0, 0], loss(images))
    for k in (1, 5, 16):
        eps = explain.GRID[k]
        attacked = FGSM()(clf, images, mr.Untargeted(LABELS), mr.Linf(eps), full=True)
        for surface in planes.values():
            torch.testing.assert_close(surface[:, k, 0], loss(attacked), rtol=1e-4, atol=1e-6)
    transferred = (images + 8 / 255 * explain.loss_gradient(other, images, LABELS).sign).clamp(0, 1)
    torch.testing.assert_close(planes["second"][:, 0, 16], loss(transferred), rtol=1e-4, atol=1e-6)


class Quadratic(nn.Module):
    """Two logits whose difference is x' A x / 2: the margin's Hessian is A."""

    def __init__(self, matrix: torch.Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.flatten(1) - 0.5
        value = ((x @ self.matrix) * x).sum(1, keepdim=True) / 2
        return torch.cat([torch.zeros_like(value), value], 1)


def test_the_largest_eigenvalue_of_a_quadratic_network():
    """At the centre the gradient is 0 and p = 1/2: the Hessian of the cross-entropy of class 0 is A / 2."""
    g = torch.Generator().manual_seed(3)
    q, _ = torch.linalg.qr(torch.randn(16, 16, generator=g))
    values = torch.linspace(-3, 5, 16)
    clf = mr.Classifier(Quadratic(q @ torch.diag(values) @ q.T), ("a", "b"), channels=1)
    centre = torch.full((3, 1, 4, 4), 0.5)
    found = explain.curvature(clf, centre, torch.tensor([0, 0, 1]), steps=16)
    torch.testing.assert_close(found.value, torch.tensor([2.5, 2.5, 1.5], dtype=torch.float64), rtol=1e-4, atol=1e-4)
    assert bool((found.error < 1e-3).all())
    rough = explain.curvature(clf, centre, torch.tensor([0, 0, 1]), steps=6)
    bound = rough.error * rough.log_scale.exp()
    assert bool((rough.value <= found.value + 1e-5).all())
    for value, within, spectrum in zip(rough.value, bound, (values / 2, values / 2, -values / 2), strict=True):
        assert (value - spectrum).abs().min() <= within + 1e-5


def test_the_curvature_of_a_linear_network_is_p_q_times_its_slope_squared():
    for clf, images in ((linear(), grey(5)), (sure(20.0), torch.full((5, 1, 6, 6), 0.52))):
        p = clf.logits(images).double().softmax(1)
        weight = clf.net.weight.detach().double()
        wanted = p[:, 0] * p[:, 1] * (weight[1] - weight[0]).square().sum()
        found = explain.curvature(clf, images, LABELS if len(images) > 2 else torch.tensor([1, 1]))
        right = p.argmax(1) == LABELS
        torch.testing.assert_close(found.value[right], wanted[right], rtol=1e-3, atol=0)


def test_lanczos_meets_the_spectrum_whatever_its_signs():
    g = torch.Generator().manual_seed(0)
    a = torch.randn(4, 12, 12, generator=g)
    a = a + a.mT
    a[1] = -a[1] @ a[1].mT  # all negative
    a[2] = torch.ones(12, 12)  # rank one: exhausted at once
    a[3] = 0.0
    top, _ = lanczos(lambda v: (a @ v[:, :, None])[:, :, 0], torch.randn(4, 12, generator=g), 12)
    torch.testing.assert_close(top, torch.linalg.eigvalsh(a.double())[:, -1], rtol=1e-4, atol=1e-4)


# -- Grad-CAM ------------------------------------------------------------------------------------------------


class Blob(nn.Module):
    """Looks at brightness, one convolution, average pooling: its Grad-CAM is the image."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(1, 2, 1, bias=False)
        self.pool, self.say = nn.AdaptiveAvgPool2d(1), nn.Linear(2, 2)
        with torch.no_grad():
            self.see.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
            self.say.weight.copy_(torch.tensor([[0.0, 1.0], [1.0, 0.0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.say(self.pool(self.see(x)).flatten(1))


def test_the_centre_of_a_blob_moves_as_the_blob_does():
    clf = mr.Classifier(Blob(), ("dark", "bright"), channels=1)
    here, there = torch.zeros(1, 1, 24, 24), torch.zeros(1, 1, 24, 24)
    here[0, 0, 4:8, 3:9] = 1.0
    there[0, 0, 9:13, 15:21] = 1.0
    bright = torch.tensor([1])
    before, after = (explain.grad_cam(clf, x, bright, layer="see") for x in (here, there))
    torch.testing.assert_close(before / before.max(), here[:, 0])
    torch.testing.assert_close(explain.centre(before), torch.tensor([[5.5, 5.5]], dtype=torch.float64))
    assert explain.shift(before, after).item() == pytest.approx(math.hypot(5, 12))
    assert explain.diagonal(before) == pytest.approx(23 * math.sqrt(2))
    mask = here
    assert explain.lesion_share(before, mask).item() == pytest.approx(1)
    assert explain.lesion_share(after, mask).item() == pytest.approx(0)
    # what speaks for "bright" speaks against "dark": nothing positive is left
    nothing = explain.grad_cam(clf, here, torch.tensor([0]), layer="see")
    assert not nothing.any()
    assert explain.shift(before, nothing).isnan().all()


def test_grad_cam_finds_its_layer_and_leaves_the_network_alone():
    clf, images = bumpy(), grey(5, 16, spread=0.2)
    clf.net.train()
    names = [layer.name for layer in explain.spatial_layers(clf, images.shape)]
    assert names[0] == "body.0"
    assert explain.last_spatial(clf, images.shape) == "body.6"
    assert explain.stages(clf, images.shape) == ("body.2", "body.6")  # 16 x 16 and 8 x 8; 2 x 2 is too coarse
    first = explain.grad_cam(clf, images)
    assert first.shape == (5, 16, 16)
    assert bool((first >= 0).all())
    assert torch.equal(first, explain.grad_cam(clf, images, clf.predict(images), layer="body.6"))
    assert all(m.training for m in clf.net.modules())
    assert not any(m._forward_hooks for m in clf.net.modules())
    with pytest.raises(mr.InputError, match=r"no layer 'layer4'; it has penultimate, logits, body, body\.0"):
        explain.grad_cam(clf, images, layer="layer4")
    with pytest.raises(mr.InputError, match="no map"):
        explain.grad_cam(clf, images, layer="body.8")
    with pytest.raises(mr.InputError, match="no place to look at"):
        explain.grad_cam(linear(), grey(2))


# -- lesions -------------------------------------------------------------------------------------------------


def test_agreement_with_a_lesion():
    mask = torch.zeros(3, 1, 8, 8)
    mask[:2, 0, 2:4, 2:4] = 1.0
    maps = torch.stack([mask[0, 0], 1 - mask[0, 0], mask[0, 0]])
    assert explain.pointing_game(maps, mask).tolist()[:2] == [1.0, 0.0]
    assert explain.lesion_auroc(maps, mask).tolist()[:2] == [1.0, 0.0]
    assert explain.lesion_share(maps, mask).tolist()[:2] == [1.0, 0.0]
    assert explain.lesion_area(mask).tolist() == [4 / 64, 4 / 64, 0.0]
    for measure in (explain.pointing_game, explain.lesion_auroc, explain.lesion_share):
        assert measure(maps, mask)[2].isnan()  # no lesion, nothing to find
        assert measure(torch.zeros(3, 8, 8), mask).isnan().all()
    near = torch.zeros(1, 8, 8)
    near[0, 5, 3] = 1.0
    assert explain.pointing_game(near, mask[:1]).item() == 0
    assert explain.pointing_game(near, mask[:1], tolerance=2).item() == 1
    with pytest.raises(mr.InputError, match="masks must be"):
        explain.lesion_auroc(maps, mask[:, :, :4])
