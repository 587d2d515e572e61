"""Perturbations that raise features: what they end at where every pixel's share in the features is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.universal import GDUAP, PSPUAP, TRMUAP, Noise, UniversalTask
from medrobust.universal.minibatch import MinibatchStep
from tests.nets import bumpy, grey


class Weighed(nn.Module):
    """Two convolutions of single pixels, by ``first`` and by 1, a ReLU that works in place behind each, two classes."""

    def __init__(self, first: float) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace=True), nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(inplace=True)
        )
        with torch.no_grad():
            for layer, weight in ((self.body[0], first), (self.body[2], 1.0)):
                layer.weight.fill_(weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height = self.body(x).mean((1, 2, 3)) + x.mean((1, 2, 3))
        return torch.stack([height, 1 - height], 1)


def classifier(first: float) -> mr.Classifier:
    return mr.Classifier(Weighed(first), ["a", "b"], outputs="logits")


@pytest.mark.parametrize("method", [GDUAP(passes=3), TRMUAP(passes=3), PSPUAP(passes=3)], ids=repr)
@pytest.mark.parametrize("ball", [mr.Linf(0.05), mr.L2(0.3)], ids=repr)
def test_where_every_pixel_raises_the_features_every_pixel_is_raised(method, ball):
    v = method(classifier(2.0), grey(30), mr.Untargeted(), ball)
    up = torch.ones(1, 1, 6, 6)
    if isinstance(ball, mr.Linf):
        torch.testing.assert_close(v.delta, float(ball.eps) * up[0])
    else:  # a brighter pixel counts for more
        assert (v.delta > 0).all()
        assert v.size == pytest.approx(float(ball.eps), rel=1e-4)
    assert v.why == ""


def test_only_the_ratio_sees_outputs_below_zero_and_lowers_them():
    clf, images, ball = classifier(-2.0), grey(30), mr.Linf(0.05)
    gd = GDUAP(passes=3)(clf, images, mr.Untargeted(), ball)
    assert not gd.nonzero
    assert "gradient was zero" in gd.why
    trm = TRMUAP(passes=3, depth=0.5)(clf, images, mr.Untargeted(), ball)
    torch.testing.assert_close(trm.delta, torch.full((1, 6, 6), -0.05))


def test_depth_counts_layers_from_the_image_on():
    task = UniversalTask(bumpy(), torch.rand(4, 1, 16, 16), mr.Untargeted(), mr.Linf(0.1), None)
    first, second = (m for m in task.classifier.net.modules() if isinstance(m, nn.Conv2d))
    assert list(GDUAP().layers(task)) == [first, second]
    assert list(TRMUAP(depth=0.65).layers(task)) == [first]
    assert list(TRMUAP(depth=0.1).layers(task)) == [first]


def test_a_crop_is_a_part_of_its_image_and_depends_on_seed_step_and_place():
    ramp = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    crops = [
        PSPUAP(crop=0.1)._crop(ramp, MinibatchStep(n, None, 1.0, seed), i)
        for seed in (0, 1)
        for n in (0, 1)
        for i in (0, 1)
    ]
    assert all(c.shape == ramp.shape for c in crops)
    assert all(c.min() >= 0 and c.max() <= 1 for c in crops)
    assert len({c.numpy().tobytes() for c in crops}) == 8
    assert torch.equal(PSPUAP(crop=0.1)._crop(ramp, MinibatchStep(1, None, 1.0, 1), 1), crops[-1])


def test_crops_that_are_fooled_already_weigh_less():
    clf = classifier(1.0)
    task = UniversalTask(
        clf, torch.cat([torch.zeros(1, 1, 6, 6), torch.full((1, 1, 6, 6), 0.5)]), mr.Untargeted(), mr.Linf(0.4), None
    )
    delta = torch.full((1, 6, 6), -0.4)  # a black image stays as it is, a grey one does not
    _, weight = PSPUAP(crop=1.0).prior(task, MinibatchStep(0, None, 1.0, 0), [0, 1], delta)
    assert weight[0] == 1
    assert weight[1] < 0.1


def test_noise_is_enough_and_a_target_is_refused():
    clf = bumpy(classes=3)
    v = GDUAP(passes=2)(clf, Noise(16, (1, 16, 16)), mr.Untargeted(), mr.Linf(0.1))
    assert v.provenance["images"] == {"name": "noise", "n": 16}
    assert v.nonzero
    with pytest.raises(mr.InputError, match="raises features and has no target: leave the target out, or use sgd"):
        TRMUAP()(clf, torch.rand(8, 1, 16, 16), mr.Targeted(1), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match="depth lies in"):
        TRMUAP(depth=0.0)
    with pytest.raises(mr.InputError, match="crop lies in"):
        PSPUAP(crop=0.0)
