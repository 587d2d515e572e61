"""Transformations are what the libraries do, each image by itself, and an attack can be optimised through them."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import medrobust as mr
from medrobust.attacks import PGD, run
from medrobust.images import on_grid
from medrobust.transformations import TRANSFORMATIONS, after
from tests.nets import bumpy


def images(channels=1, side=16):
    x = torch.rand(5, channels, side // 4, side // 4, generator=torch.Generator().manual_seed(3))
    return on_grid(torch.nn.functional.interpolate(x, (side, side), mode="bilinear"), 255)


@pytest.mark.parametrize("name", TRANSFORMATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_transformation_keeps_shape_and_range_has_a_gradient_and_treats_images_alone(name, channels):
    x = images(channels).requires_grad_()
    out = TRANSFORMATIONS[name](x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert out.shape == x.shape
    assert out.dtype == torch.float32
    assert ((out >= 0) & (out <= 1)).all()
    assert torch.isfinite(gradient).all()
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert torch.equal(TRANSFORMATIONS[name](x[[3, 1]]), out[[3, 1]])
    assert (out - x).abs().mean() < 0.15


def test_a_jpeg_is_pillow_s_to_the_bit():
    x = images(3, side=32)
    for row, out in zip(x, TRANSFORMATIONS["JPEG 75"](x), strict=True):
        stream = io.BytesIO()
        Image.fromarray(row.mul(255).round().byte().permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=75)
        read = np.asarray(Image.open(stream))
        assert np.array_equal(read, out.mul(255).round().byte().permute(1, 2, 0).numpy())


def test_half_size_and_back_is_pillow_s_to_the_bit():
    x = images(1, side=18)
    for row, out in zip(x, TRANSFORMATIONS["half size and back, Pillow"](x), strict=True):
        picture = Image.fromarray(row[0].mul(255).round().byte().numpy())
        back = picture.resize((9, 9), Image.Resampling.BILINEAR).resize((18, 18), Image.Resampling.BILINEAR)
        assert np.array_equal(np.asarray(back), out[0].mul(255).round().byte().numpy())


@pytest.mark.parametrize("head", ["softmax", "logit"])
def test_after_is_the_classifier_of_transformed_images(head):
    clf = bumpy(classes=2)
    if head == "logit":
        net = torch.nn.Sequential(clf.net, torch.nn.Linear(2, 1))
        clf = mr.Classifier(net, clf.classes, head="logit", mean=[0.4], std=[0.2], threshold=0.3)
    x, way = images(), TRANSFORMATIONS["JPEG 75"]
    assert torch.allclose(after(clf, way, x).logits(x), clf.logits(way(x)), atol=1e-4)
    assert after(clf.stored(255), way, x).stored_levels == 255


def test_an_attack_optimised_through_a_transformation_survives_it_more_often():
    clf = bumpy(classes=3)
    x = on_grid(torch.rand(24, 1, 16, 16, generator=torch.Generator().manual_seed(4)), 255)
    labels, way = clf.predict(x), TRANSFORMATIONS["half size and back, OpenCV"]
    kept = clf.predict(way(x)) == labels
    goal, ball = mr.Untargeted(labels), mr.Linf(8 / 255)
    targets = clf.stored(255), after(clf.stored(255), way, x)
    made = [run(PGD(steps=10), c, x, goal, ball, full=True, fast=False).images for c in targets]
    assert torch.equal(made[1], on_grid(made[1], 255))
    assert ball.legal(x, made[1]).all()
    plain, optimised = ((clf.predict(way(one)) != labels)[kept].sum() for one in made)
    assert kept.sum() >= 5
    assert optimised > plain
