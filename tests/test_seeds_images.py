"""Randomness keyed by what it is for, and pixels on the grid of their bit depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medrobust import InputError, images, seeds

DRAWS = [seeds.uniform, seeds.normal, seeds.signs]


@pytest.mark.parametrize("draw", DRAWS)
def test_a_row_s_randomness_is_its_own(draw):
    ids = [f"im{i}" for i in range(9)]
    together = draw(3, "noise", ids, (2, 4))
    assert together.shape == (9, 2, 4)
    assert together.dtype == torch.float32
    assert torch.equal(draw(3, "noise", ids[::-1], (2, 4)).flip(0), together)
    assert torch.equal(draw(3, "noise", ["im4"], (2, 4)), together[[4]])
    assert torch.equal(draw(3, "noise", ids, (2, 4)), together)
    assert len({r.numpy().tobytes() for r in together}) > 7
    assert draw(3, "noise", [], (2, 4)).shape == (0, 2, 4)


def test_every_part_of_the_key_counts():
    keys = [
        (0, "a", 1),
        (1, "a", 1),
        (-1, "a", 1),
        (0, "b", 1),
        (0, "a", 2),
        (0, "a", "1"),
        (0, "a"),
        (0, "a", 1, 1),
        (0, "a", "1", 1),
        (0, "a", 11),
        (2**40, "a", 1),
    ]
    drawn = {k: seeds.generator(*k).random(4).tobytes() for k in keys}
    assert len(set(drawn.values())) == len(keys)
    assert all(seeds.generator(*k).random(4).tobytes() == v for k, v in drawn.items())


def test_the_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    before, ours = torch.random.get_rng_state(), seeds.normal(0, "x", [1], (3,))
    state = np.random.get_state()[1].copy()  # noqa: NPY002  # the legacy state is what must not move
    torch.manual_seed(1)
    assert torch.equal(seeds.normal(0, "x", [1], (3,)), ours)
    torch.manual_seed(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_the_distributions_are_what_they_say():
    ids = range(2000)
    u, z, s = (draw(0, "d", ids, (10,)) for draw in DRAWS)
    assert u.min() >= -1
    assert u.max() < 1
    assert (float(u.mean()), float(u.var())) == pytest.approx((0, 1 / 3), abs=0.02)
    assert (float(z.mean()), float(z.var())) == pytest.approx((0, 1), abs=0.03)
    assert set(s.unique().tolist()) == {-1.0, 1.0}
    assert float(s.mean()) == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("bits", [1, 8, 12, 16])
def test_saving_is_rounding_to_the_nearest_level(bits):
    top = 2**bits - 1
    x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    saved = images.save_at(x, bits)
    assert torch.equal(images.save_at(saved, bits), saved)
    assert (saved.double() - x.double()).abs().max() <= 0.5 / top + 1e-7
    steps = saved.double() * top
    assert (steps - steps.round()).abs().max() < 1e-2
    assert torch.equal(images.save_at(torch.tensor([0.0, 1.0]), bits), torch.tensor([0.0, 1.0]))


def test_nothing_is_truncated():
    assert float(images.save_at(torch.tensor(100.9 / 255), 8)) == pytest.approx(101 / 255)
    assert float(images.save_at(torch.tensor(100.4 / 255), 8)) == pytest.approx(100 / 255)


@pytest.mark.parametrize(("kind", "bits"), [(torch.uint8, 8), *((torch.uint16, bits) for bits in (10, 12, 16))])
def test_stored_pixels_survive_the_way_to_float_and_back(kind, bits):
    top = 2**bits - 1
    stored = torch.arange(top + 1, dtype=torch.int32)
    x = images.as_float(stored.to(kind), top)
    assert x.dtype == torch.float32
    assert torch.equal((x.double() * top).round().int(), stored)
    assert torch.equal(images.on_grid(x, top), x)
    assert torch.equal(images.save_at(x, bits), x)


def test_each_image_has_its_own_grid():
    stored, levels = torch.tensor([3, 3, 3], dtype=torch.uint16).view(3, 1, 1, 1), torch.tensor([255, 4095, 65535])
    x = images.as_float(stored, levels)
    assert torch.equal(x.flatten(), torch.tensor([3 / 255, 3 / 4095, 3 / 65535]))
    assert torch.equal(images.on_grid(x + 0.4 / levels.view(-1, 1, 1, 1), levels), x)


@pytest.mark.parametrize(
    ("x", "said"),
    [
        (np.zeros((1, 1, 4, 4)), "must be a torch tensor"),
        (torch.zeros(1, 4, 4), "four axes"),
        (torch.zeros(1, 1, 4, 4, dtype=torch.uint8), "divide 8-bit images by 255"),
        (torch.zeros(1, 4, 4, 3), r"1 or 3 channels, got 4 \(shape \(1, 4, 4, 3\)\)"),
        (torch.full((1, 1, 4, 4), 1.001), "got 1.001 to 1.001; were they normalised already"),
        (torch.full((1, 1, 4, 4), -0.5), "got -0.500"),
        (torch.full((1, 1, 4, 4), torch.nan), "lie in"),
    ],
)
def test_what_is_no_image_is_refused_with_the_mend(x, said):
    with pytest.raises(InputError, match=said):
        images.check_images(x)


def test_images_are_taken_as_they_are():
    x = torch.rand(2, 3, 4, 4)
    assert images.check_images(x) is x
    assert images.check_images(x.double()).dtype == torch.float32
    assert images.check_images(torch.zeros(0, 1, 4, 4)).shape == (0, 1, 4, 4)
    with pytest.raises(InputError, match="whole numbers"):
        images.as_float(torch.zeros(3), 255)
    for bits in (0, 17):
        with pytest.raises(InputError, match="between 1 and 16"):
            images.save_at(x, bits)
