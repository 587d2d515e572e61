"""Of DICOM files no attack changes the padding, and every attacked pixel is a value that the file can hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust.attacks import ATTACKS, FGSM, Transfer, run, sparsest
from medrobust.data import load
from medrobust.experiments.robustness_cells import noise
from medrobust.images import on_grid
from medrobust.universal import UNIVERSAL, Universal, controls, fooling_rate, judge
from tests.attacks.test_contract import balls, make
from tests.dicom_files import elements, save
from tests.nets import Linear, bumpy

SIDE, LAST = 16, 4095


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """12-bit files shown from 3000 to 4499, beyond what 12 bits hold; four rows of padding, whose value is shown."""
    root = tmp_path_factory.mktemp("padded")
    for i in range(4):
        pixels = np.random.default_rng(i).integers(2900, LAST + 1, (SIDE, SIDE)).astype(np.uint16)
        pixels[:4] = 3500
        made = elements(pixels, 12, window=(3750, 1500), patient=str(i), PixelPaddingValue=3500)
        save(made, root / ("ill", "well")[i % 2] / str(i))
    return load(f"dicom:{root}")


@pytest.fixture(scope="module")
def images(data):
    return data.images(range(len(data)))


def classifier(data, net=None):
    made = bumpy(classes=3) if net is None else mr.Classifier(net, ("a", "b"), outputs="logits")
    return made.seeing(data.surround, data.storable).stored(data.attacked_levels)


def stored_values(data, images):
    """As the files hold them: 3000 is black."""
    return (images.double() * data.attacked_levels).round() - data.attacked_levels // 3 + 3000


def check(data, images, attacked):
    assert torch.equal(attacked[:, :, :4], images[:, :, :4])
    assert stored_values(data, attacked)[:, :, 4:].max() <= LAST
    assert torch.equal(attacked, on_grid(attacked, data.attacked_levels))
    assert not torch.equal(attacked, images)


def test_the_files_state_what_they_can_hold(data, images):
    assert data.attacked_levels == 3 * 1499
    assert stored_values(data, images)[:, :, 4:].max() == LAST
    assert data.storable == (0.0, (LAST - 3000 + 1499) / (3 * 1499))
    assert data.shown().storable == pytest.approx((0.0, (LAST - 3000) / 1499))
    assert not images[:, :, :4].any()


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_touches_padding_or_what_no_file_holds(name, data, images):
    clf, ball = classifier(data), balls(name)[-1]
    goal = mr.Untargeted(clf.predict(images))
    attacked = make(name)(clf, images, goal, ball, seed=1)
    check(data, images, attacked)
    assert mr.judge(clf, images, attacked, goal, ball).legal.all()
    other = images.clone()
    other[0, 0, 0, 0] += 1 / data.attacked_levels
    assert not mr.judge(clf, images, other, goal, ball).legal[0]


def test_examples_of_a_surrogate_and_sparse_changes_keep_off_it_too(data, images):
    clf = classifier(data)
    goal = mr.Untargeted(clf.predict(images))
    replayed = run(Transfer(bumpy(classes=3, seed=1), make("pgd")), clf, images, goal, mr.Linf(0.03))
    check(data, images, replayed.images)
    found = sparsest(clf, images, goal, data.attacked_levels)
    assert torch.equal(found.images[:, :, :4], images[:, :, :4])


def test_an_l2_step_is_all_spent_on_pixels_that_may_change(data, images):
    clf = classifier(data).changed(stored_levels=None)
    ball = mr.L2(0.05)
    stepped = FGSM()(clf, images, mr.Untargeted(clf.predict(images)), ball)
    assert torch.allclose(ball.size(stepped - images), torch.tensor(0.05), rtol=0.05, atol=0)


def test_a_network_that_reads_hardly_more_than_padding_is_turned_by_nothing(data, images):
    weight = torch.zeros(2, 1, SIDE, SIDE)
    weight[1] = 1e-4
    weight[1, :, :4] = 1.0
    clf = classifier(data, Linear(weight.flatten(1), torch.tensor([0.1, 0.0])))
    everything = Universal(torch.full((1, SIDE, SIDE), 0.9), mr.Linf(0.9), mr.Untargeted())
    assert fooling_rate(clf, images, everything).value == 0
    assert (judge(clf, images, everything).after == 0).all()
    for norm, size in ((mr.Linf, 0.9), (mr.L2, 20.0)):
        _, arrays = noise(clf, data, norm, (size,), 0, lambda _: None)
        assert not arrays["decision"].any()
        assert all(fooling_rate(clf, images, made).value == 0 for made in controls(clf, images, norm(size)))


@pytest.mark.parametrize("name", ["sga", "sgd", "df"])
def test_a_universal_perturbation_is_zero_where_all_images_have_padding(name, data, images):
    made = UNIVERSAL[name]()(classifier(data), images, mr.Untargeted(), mr.L2(1.0), seed=0)
    assert made.nonzero
    assert not made.delta[:, :4].any()
