"""Phantoms: pure functions of (modality, seed, index, size), balanced, with the lesion as the only difference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from medrobust import data
from medrobust.data.phantom import MODALITIES, VERSION, render

NAMES = sorted(name for name, modality in MODALITIES.items() if modality.sets is None)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_a_pure_function_of_its_index(name: str) -> None:
    small, large = data.load(f"phantom:{name}@32:n=36"), data.load(f"phantom:{name}@32:n=360")
    assert torch.equal(small.images([7]), large.images([7]))
    assert small.split_of[7] == large.split_of[7]
    assert small.ids[7] == f"phantom-{name}-00007"
    assert not torch.equal(small.images([7]), small.images([9]))
    other = data.load(f"phantom:{name}@32:n=36", seed=1)
    assert not torch.equal(small.images([7]), other.images([7]))
    assert len({d.digest() for d in (small, large, other)}) == 3


@pytest.mark.parametrize("name", NAMES)
def test_the_default_set_is_1200_200_400_and_balanced(name: str) -> None:
    found = data.load(f"phantom:{name}")
    assert [len(found.split(s)) for s in ("train", "val", "test")] == [1200, 200, 400]
    assert all((found.split(s).labels == 0).mean() == 0.5 for s in ("train", "val", "test"))
    assert found.size == 64


@pytest.mark.parametrize("name", ["chest", "fundus"])
@pytest.mark.parametrize("size", [32, 96])
def test_with_and_without_its_lesion_an_image_differs_near_the_mask_only(name: str, size: int) -> None:
    for index in range(8):
        healthy, empty = render(name, 0, index, size, present=False)
        ill, mask = render(name, 0, index, size, present=True)
        assert empty.sum() == 0
        assert mask.max() > 0.5
        change = np.abs(ill.astype(int) - healthy)
        change = change.max(-1) if change.ndim == 3 else change
        # a chest opacity fades out beyond the contour where it is a third strong
        reach = size // 4 if name == "chest" else 1
        near = ndimage.binary_dilation(mask > 0, iterations=reach)
        assert change[~near].max() <= 2
        assert change[mask > 0.5].mean() > 5


@pytest.mark.parametrize("name", NAMES)
def test_the_mask_of_a_larger_image_is_the_same_place(name: str) -> None:
    index = int(np.flatnonzero(data.load(f"phantom:{name}:n=18").labels == 1)[0])
    small, large = render(name, 0, index, 32, True)[1], render(name, 0, index, 128, True)[1]
    shrunk = large.reshape(32, 4, 32, 4).mean((1, 3))
    assert np.abs(shrunk - small).mean() < 0.02
    assert shrunk[small > 0.9].mean() > 0.6


@pytest.mark.parametrize("name", NAMES)
def test_the_scene_of_a_larger_image_is_the_same(name: str) -> None:
    small, large = (render(name, 0, 4, size, True)[0].astype(float) for size in (32, 128))
    shrunk = large.reshape(32, 4, 32, 4, -1).mean((1, 3)).squeeze()
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.97


def test_skin_has_its_lesion_in_both_classes() -> None:
    found = data.load("phantom:skin@32:n=18")
    masks = found.masks(range(18))
    assert masks is not None
    assert masks.shape == (18, 1, 32, 32)
    assert (masks.mean((1, 2, 3)) > 0.02).all()


def test_files_have_no_masks_and_healthy_phantoms_empty_ones() -> None:
    found = data.load("phantom:chest@32:n=18")
    masks = found.masks(range(18))
    assert masks is not None
    areas = masks.sum((1, 2, 3)).numpy()
    assert (areas[found.labels == 0] == 0).all()
    assert (areas[found.labels == 1] > 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_class_is_not_in_brightness_border_or_noise(name: str) -> None:
    """A threshold on a plain statistic must not give the class away: nuisance does not know the label."""
    found = data.load(f"phantom:{name}@32:n=198")
    images, labels = found.tensors()
    corners = images[:, :, [0, 0, -1, -1], [0, -1, 0, -1]].mean((1, 2))
    rim = torch.cat([images[:, :, :2].flatten(1), images[:, :, -2:].flatten(1)], 1).std(1)
    for statistic in (corners, rim):
        cut = statistic.median()
        agree = ((statistic > cut) == (labels == 1)).float().mean()
        assert 0.4 < agree < 0.6


def test_a_hundred_thousand_images_cost_nothing_until_they_are_read() -> None:
    found = data.load("phantom:chest@64:n=100000")
    assert len(found) == 100_000
    assert found.source._kept_bytes == 0
    assert found.images([99_999]).shape == (1, 1, 64, 64)


def test_pixels_are_those_of_this_version_of_the_generator() -> None:
    """If this fails on purpose, count VERSION up: results of other images must not be taken for these."""
    assert VERSION == 1
    sums = {name: int(render(name, 0, 1, 32, True)[0].sum()) for name in NAMES}
    assert sums == pytest.approx(EXPECTED_SUMS, rel=1e-3)


EXPECTED_SUMS = {"chest": 147467, "fundus": 168504, "skin": 537142}
