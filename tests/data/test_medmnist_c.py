"""MedMNIST-C: each corruption is the function of the library that it is made of, and its errors are its formulas."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage
from skimage import color, util
from sklearn.metrics import balanced_accuracy_score

from medrobust import InputError, seeds
from medrobust.data import load
from medrobust.data.corruptions import corrupt, corruption_set, medmnist_c
from medrobust.data.corruptions.medmnist_c import changes
from medrobust.data.corruptions.medmnist_c.parameters import KINDS


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """uint8 (96, 96, 3)."""
    image = load("phantom:skin@96:n=60").images([3])[0]
    return (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def cut(values: np.ndarray) -> np.ndarray:
    return (np.clip(values, 0, 1) * 255).astype(np.uint8)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_noise_is_that_of_the_libraries_with_the_same_draws(pixels):
    x = pixels / 255
    noise = rng().normal(size=x.shape, scale=0.2)
    assert np.array_equal(changes.gaussian_noise(pixels, 0.2, rng()), cut(x + noise))
    assert np.array_equal(changes.speckle_noise(pixels, 0.2, rng()), cut(x * (1 + noise)))
    assert np.array_equal(changes.shot_noise(pixels, 60, rng()), cut(rng().poisson(x * 60) / 60))
    assert np.array_equal(
        changes.impulse_noise(pixels, 0.1, rng()), cut(util.random_noise(x, mode="s&p", amount=0.1, rng=rng()))
    )


def test_what_pillow_torchvision_and_skimage_do_is_theirs(pixels):
    from torchvision.transforms import functional

    picture, none = Image.fromarray(pixels), rng()
    for factor in (0.6, 1.4):
        assert np.array_equal(
            changes.brightness(pixels, factor, none), ImageEnhance.Brightness(picture).enhance(factor)
        )
        assert np.array_equal(changes.contrast(pixels, factor, none), ImageEnhance.Contrast(picture).enhance(factor))
        assert np.array_equal(changes.gamma(pixels, factor, none), functional.adjust_gamma(picture, factor))
    assert np.array_equal(changes.gaussian_blur(pixels, 9, none), functional.gaussian_blur(picture, 9))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=15)
    assert np.array_equal(changes.jpeg(pixels, 15, none), Image.open(stream))
    small = picture.resize((38, 38), Image.Resampling.BOX)
    assert np.array_equal(changes.pixelate(pixels, 0.4, none), small.resize((96, 96), Image.Resampling.BOX))
    hsv = color.rgb2hsv(pixels / 255)
    hsv[..., 1] = (hsv[..., 1] + 0.15).clip(0, 1)
    assert np.array_equal(changes.saturate(pixels, 0.15, none), cut(color.hsv2rgb(hsv)))


def test_blurs_of_a_point_are_their_kernels():
    point = np.zeros((65, 65, 3), np.uint8)
    point[32, 32] = 255
    disk = changes.defocus_blur(point, (5, 0.1), rng())[..., 0]
    inside = (np.arange(65)[:, None] - 32) ** 2 + (np.arange(65) - 32) ** 2 <= 25
    assert set(np.unique(disk[inside])) == {int(255 / inside.sum())}
    assert not disk[~inside].any()
    line = changes.along_line(point, 6, 3, 0)[32, :, 1]
    weights = np.exp(-(np.arange(13) ** 2) / 18)
    assert line[20:33].tolist() == np.floor(255 * weights / weights.sum() + 1e-3).astype(int)[::-1].tolist()
    turned = changes.along_line(point, 6, 3, -45)[..., 1]
    assert [tuple(p) for p in np.argwhere(turned)] == [(32 + i, 32 - i) for i in range(len(np.argwhere(turned)))]
    flat = np.full((20, 30, 3), 77, np.uint8)
    assert np.array_equal(changes.along_line(flat, 15, 12, 20), flat)


def test_zoom_is_the_mean_of_enlarged_copies(pixels):
    x = (pixels / 255).astype(np.float32)
    total, factors = x.copy(), np.arange(1, 1.21, 0.02)
    for factor in factors:
        part = int(np.ceil(96 / factor))
        top = (96 - part) // 2
        large = ndimage.zoom(x[top : top + part, top : top + part], (factor, factor, 1), order=1)
        trim = (large.shape[0] - 96) // 2
        total += large[trim : trim + 96, trim : trim + 96]
    assert np.array_equal(changes.zoom_blur(pixels, (1.21, 0.02), rng()), cut(total / (len(factors) + 1)))


def test_corners_and_bubbles(pixels):
    kept = changes.black_corner(pixels, 0.9, rng())
    assert np.array_equal(kept[48, 48], pixels[48, 48])
    assert not kept[:4].any()
    lighter = changes.bubble(pixels, (7, 15), rng()).astype(int) - pixels
    assert lighter.min() >= 0
    assert 0 < (lighter > 0).mean() < 1
    assert changes.bubble(pixels[:28, :28], (17, 25), rng()).shape == (28, 28, 3)


@pytest.mark.parametrize("name", medmnist_c.SETS)
def test_every_set_corrupts_images_of_any_size_and_colour(name):
    for channels, side in ((1, 28), (3, 40)):
        images = load(f"phantom:{'chest' if channels == 1 else 'skin'}@{side}:n=60").images([0])
        table = corruption_set(f"medmnist-c:{name}", channels)
        assert len(table) >= 6
        for kind in table:
            out = corrupt(images, kind, 5, table=table)
            assert out.shape == images.shape
            assert torch.equal((out * 255).round(), out * 255)
    assert medmnist_c.ALEXNET[name].corrupted.keys() == medmnist_c.SETS[name].keys()


def test_grey_images_are_corrupted_as_three_channels():
    image = load("phantom:chest@28:n=60").images([0])
    table = corruption_set("medmnist-c:pneumoniamnist", 1)
    out = corrupt(image, "gaussian_noise", 3, seed=5, ids=["a"], table=table)
    three = (image[0] * 255).round().to(torch.uint8).expand(3, -1, -1).permute(1, 2, 0).numpy()
    made = changes.gaussian_noise(three, 0.06, seeds.generator(5, "corruption/gaussian_noise", "a"))
    assert np.array_equal((out[0, 0] * 255).round().numpy(), np.array(Image.fromarray(made).convert("L")))


@pytest.mark.parametrize("name", ["pneumoniamnist", "octmnist"])
def test_balanced_errors_are_the_formulas_of_the_paper(name):
    draw, baseline = np.random.default_rng(1), medmnist_c.ALEXNET[name]
    labels = draw.integers(0, 4, 200)

    def answers(wrong: float) -> np.ndarray:
        return np.where(draw.random(200) < wrong, draw.integers(0, 4, 200), labels)

    clean, corrupted = answers(0.1), {kind: [answers(0.1 * s) for s in range(1, 6)] for kind in baseline.corrupted}
    made = medmnist_c.balanced_errors(
        balanced_accuracy_score(labels, clean),
        {kind: [balanced_accuracy_score(labels, a) for a in each] for kind, each in corrupted.items()},
        baseline,
    )
    be, rbe, clean_error = [], [], 1 - balanced_accuracy_score(labels, clean)
    for kind, each in corrupted.items():
        error = np.mean([1 - np.mean([(a == labels)[labels == k].mean() for k in range(4)]) for a in each])
        be.append(error / baseline.corrupted[kind])
        rbe.append((error - clean_error) / (baseline.corrupted[kind] - baseline.clean))
    assert made.be == pytest.approx(np.mean(be))
    assert made.rbe == pytest.approx(np.mean(rbe))
    alone = medmnist_c.balanced_errors(
        1 - baseline.clean, {kind: [1 - e] * 5 for kind, e in baseline.corrupted.items()}, baseline
    )
    assert (alone.be, alone.rbe) == pytest.approx((1, 1))


def test_facts_of_the_registry():
    chest = medmnist_c.SETS["pneumoniamnist"]
    assert (chest["gaussian_noise"], chest["gaussian_blur"]) == ((0.04, 0.05, 0.06, 0.07, 0.08), (3, 5, 7, 9, 11))
    assert medmnist_c.ALEXNET["octmnist"].corrupted["motion_blur"] == pytest.approx(0.4892)
    assert {kind for kinds in medmnist_c.SETS.values() for kind in kinds} == KINDS.keys()
    with pytest.raises(InputError, match="MedMNIST-C has no data set 'mnist'"):
        corruption_set("medmnist-c:mnist")
