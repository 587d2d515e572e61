"""Corruptions: legal, keyed by (seed, id), free of the batch, larger with the severity, and what each claims to be."""

from __future__ import annotations

import pytest
import torch

from medrobust import InputError
from medrobust.data import load
from medrobust.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt, suited

SIDES = (28, 64)


def photos(side: int = 64, n: int = 12, channels: int = 3) -> torch.Tensor:
    """Phantoms with something to see, coloured for the corruptions of colour."""
    grey = load(f"phantom:chest@{side}:n=60").images(range(n))
    tint = torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1)
    return grey * tint if channels == 3 else grey


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side", SIDES)
def test_every_severity_is_legal_and_larger_than_the_one_below(name, side):
    images = photos(side)
    sizes = []
    for severity in SEVERITIES:
        out = corrupt(images, name, severity, seed=3)
        assert out.shape == images.shape
        assert out.dtype == torch.float32
        assert float(out.min()) >= 0
        assert float(out.max()) <= 1
        sizes.append(float((out - images).flatten(1).norm(dim=1).mean()))
    assert sizes[0] > 0
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 5


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_row_depends_on_its_seed_and_id_only(name):
    images, ids = photos(28, 5), ["a", "b", "c", "d", "e"]
    whole = corrupt(images, name, 3, seed=1, ids=ids)
    order = [3, 0, 4]
    part = corrupt(images[order], name, 3, seed=1, ids=[ids[i] for i in order])
    assert torch.equal(whole[order], part)
    assert torch.equal(whole[2:3], corrupt(images[2:3], name, 3, seed=1, ids=["c"]))


RANDOM = (
    "motion",
    "position",
    "noise",
    "shot",
    "colour",
    "dead_lines",
    "bias_field",
    "vignette",
    "glare",
    "hair",
    "bubbles",
    "marker",
    "occlusion",
    "collimation",
)


@pytest.mark.parametrize("name", RANDOM)
def test_seeds_and_ids_draw_differently(name):
    same = photos(28, 1).expand(2, -1, -1, -1).contiguous()
    a, b = corrupt(same, name, 4, seed=0, ids=["x", "y"])
    assert not torch.equal(a, b)
    assert not torch.equal(a, corrupt(same, name, 4, seed=1, ids=["x", "y"])[0])


@pytest.mark.parametrize(
    "name",
    [
        "noise",
        "shot",
        "exposure",
        "gamma",
        "contrast",
        "hair",
        "bubbles",
        "occlusion",
        "collimation",
        "glare",
        "vignette",
        "dead_lines",
    ],
)
def test_a_higher_severity_is_more_of_the_same_at_every_pixel(name):
    images = photos(64, 4)
    before = torch.zeros_like(images)
    for severity in SEVERITIES:
        change = (corrupt(images, name, severity) - images).abs()
        assert bool((change >= before - 1e-6).all())
        before = change


def test_known_answers():
    grey = torch.full((1, 1, 32, 32), 0.5)
    flat = ("blur", "motion", "downsample", "position", "contrast")
    for name in flat:  # what only moves or smooths pixels leaves a flat image flat
        assert torch.allclose(corrupt(grey, name, 5), grey, atol=1e-5), name
    assert float((corrupt(grey, "noise", 3) - grey).std()) == pytest.approx(0.04, rel=0.1)
    assert float((corrupt(grey, "shot", 3) - grey).std()) == pytest.approx((0.5 / 300) ** 0.5, rel=0.1)
    assert corrupt(photos(64, 1), "grey_levels", 5).unique().numel() <= 5
    assert float((corrupt(grey, "dead_lines", 5) == 0).float().mean()) == pytest.approx(3 / 32)
    big = torch.full((1, 1, 200, 200), 0.5)
    covered = (corrupt(big, "occlusion", 5, seed=2) - big).abs()
    assert float((covered > covered.max() / 2).float().mean()) == pytest.approx(0.08, rel=0.1)


def test_a_gaussian_blur_of_a_point_has_its_variance():
    point = torch.zeros(1, 1, 65, 65)
    point[..., 32, 32] = 1
    seen = corrupt(point, "blur", 5)[0, 0]
    x = torch.arange(65.0) - 32
    sigma = 2.6 * (65 / 128) ** 0.5
    assert float((seen.sum(0) * x**2).sum() / seen.sum()) == pytest.approx(sigma**2 + 1 / 12, rel=0.05)
    assert torch.allclose(seen, seen.T)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_images_need_not_be_square(name):
    wide = photos(64, 2)[..., 10:40, :].contiguous()
    out = corrupt(wide, name, 3)
    assert out.shape == wide.shape
    assert 0 < float((out - wide).abs().mean()) < 0.5
    tall = corrupt(wide.transpose(2, 3).contiguous(), "blur", 3)
    assert torch.allclose(tall.transpose(2, 3), corrupt(wide, "blur", 3), atol=1e-6)


def test_a_turn_keeps_angles_where_images_are_not_square():
    cross = torch.zeros(1, 1, 40, 80)
    cross[..., 19:21, 20:60] = 1
    cross[..., 10:30, 39:41] = 1
    turned = corrupt(cross, "position", 5)[0, 0]
    ys, xs = turned.nonzero().double().T
    weights = turned[turned != 0].double()
    x, y = xs - (xs * weights).sum() / weights.sum(), ys - (ys * weights).sum() / weights.sum()
    spread = torch.stack([x, y]) @ torch.diag(weights) @ torch.stack([x, y]).T / weights.sum()
    angle = float(torch.rad2deg(0.5 * torch.atan2(2 * spread[0, 1], spread[0, 0] - spread[1, 1])))
    assert abs(angle) == pytest.approx(13, abs=0.7)


def test_suited_and_refusals():
    assert {"hair", "bubbles", "colour"} <= set(suited("dermoscopy"))
    assert {"marker", "collimation"} <= set(suited("xray", 1))
    assert "hair" not in suited("xray")
    assert "colour" not in suited("fundus", 1)
    assert len(suited(None, 1)) >= 10
    images = photos(28, 2, channels=1)
    for name in suited("xray", 1):
        assert corrupt(images, name, 2).shape == images.shape
    with pytest.raises(InputError, match="'rain' is not known"):
        corrupt(images, "rain", 1)
    with pytest.raises(InputError, match="from 1 to 5"):
        corrupt(images, "blur", 6)
    with pytest.raises(InputError, match="needs colour"):
        corrupt(images, "colour", 1)
    with pytest.raises(InputError, match="one id an image"):
        corrupt(images, "blur", 1, ids=["a"])
    with pytest.raises(InputError, match="modality 'ct'"):
        suited("ct")
