"""Every measure and every saliency: one finite number an image, the same to the bit in any batch, streamed."""

from __future__ import annotations

import pytest
import torch

import medrobust as mr
from medrobust import explain
from tests.nets import bumpy, grey, linear

N = 70


class Streamed:
    """Images that say how many were asked for at once."""

    def __init__(self, images: torch.Tensor) -> None:
        self.stored, self.most = images, 0

    def __len__(self) -> int:
        return len(self.stored)

    def images(self, indices) -> torch.Tensor:
        self.most = max(self.most, len(indices))
        return self.stored[torch.as_tensor(list(indices))]


@pytest.fixture(scope="module")
def case():
    clf, images = bumpy(), grey(N, 16, spread=0.2)
    labels = torch.arange(N) % 3
    return clf, images, labels, explain.measure(clf, images, labels, ids=range(N), layer="body.4")


@pytest.mark.parametrize("name", explain.MEASURES)
def test_a_measure_is_a_finite_number_with_a_name_and_a_unit(case, name):
    _, _, _, found = case
    values, told = found[name], explain.MEASURES[name]
    assert values.shape == (N,)
    assert values.dtype == torch.float64
    assert bool(torch.isfinite(values).all())
    assert values.std() > 0
    assert told.title
    assert told.unit


def test_measures_do_not_depend_on_the_batch(case):
    clf, images, labels, whole = case
    pick = torch.tensor([66, 3, 68])
    part = explain.measure(clf, images[pick], labels[pick], ids=pick.tolist(), layer="body.4")
    for name, values in part.items():
        assert torch.equal(values, whole[name][pick]), name


@pytest.mark.parametrize("name", explain.SALIENCIES)
def test_maps_do_not_depend_on_the_batch(case, name):
    clf, images, labels, _ = case
    few = explain.SALIENCIES[name](clf, images[60:62], labels[60:62], 0, [60, 61])
    more = explain.SALIENCIES[name](clf, images[58:67], labels[58:67], 0, range(58, 67))
    assert few.shape == (2, 16, 16)
    assert bool((few >= 0).all())
    assert torch.equal(few, more[2:4])


def test_maps_of_layers_and_landscapes_do_not_depend_on_the_batch(case):
    clf, images, labels, _ = case
    for explained in (
        lambda rows: explain.grad_cam(clf, images[rows]),
        lambda rows: explain.layer_maps(clf, images[rows], "body.4"),
        lambda rows: explain.planes(clf, images[rows], labels[rows], ids=range(N)[rows], grid=(0.0, 0.01))["random"],
    ):
        assert torch.equal(explained(slice(3, 5)), explained(slice(0, 9))[3:5])


def test_lazy_images_are_streamed(case):
    clf, images, labels, whole = case
    lazy = Streamed(images)
    seen = []
    found = explain.measure(clf, lazy, labels, ("slope-l1", "margin"), advance=seen.append)
    assert list(found) == ["slope-l1", "margin"]
    assert torch.equal(found["margin"], whole["margin"])
    assert lazy.most <= clf.batch_size(images.shape)
    assert sum(seen) == N


def test_a_linear_network_breaks_where_the_measure_says():
    clf, images = linear(), grey(20)
    labels = clf.predict(images)
    eps = explain.measure(clf, images, labels, ("linear-eps",))["linear-eps"] / 255
    for factor, broken in ((0.99, False), (1.01, True)):
        weight = clf.net.weight.detach()
        towards = torch.where(labels == 0, 1.0, -1.0).view(-1, 1, 1, 1) * (weight[1] - weight[0]).sign().view(
            1, 1, 6, 6
        )
        moved = images + factor * eps.float().view(-1, 1, 1, 1) * towards
        assert bool(((clf.net(moved).argmax(1) != labels) == broken).all())


def test_wrong_asks_are_one_line():
    clf, images = bumpy(), grey(3, 16)
    with pytest.raises(mr.InputError, match="measure 'colour' is not known; choose from slope-l1"):
        explain.measure(clf, images, torch.zeros(3, dtype=torch.long), ("colour",))
    with pytest.raises(mr.InputError, match="3 images and 2 labels"):
        explain.measure(clf, images, torch.zeros(2, dtype=torch.long))
    with pytest.raises(mr.InputError, match="no layer 'stage9'"):
        explain.measure(clf, images, torch.zeros(3, dtype=torch.long), layer="stage9")
    with pytest.raises(mr.InputError, match="directions must have"):
        explain.landscape(clf, images, torch.zeros(3, dtype=torch.long), images[:2], images)
    with pytest.raises(mr.InputError, match="no class 'c2' among c0, c1; both need the same class names"):
        explain.planes(clf, images, torch.zeros(3, dtype=torch.long), second=bumpy(2))


@pytest.mark.filterwarnings("ignore:No gradient reaches the image")
def test_a_network_that_hides_its_gradient_is_said_to_be_blind():
    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 36))

        def forward(self, x):
            return x.detach().flatten(1) @ self.weight.detach().T

    clf = mr.Classifier(Hidden(), ("a", "b"), channels=1)
    found = explain.measure(clf, grey(4), torch.zeros(4, dtype=torch.long), ("slope-l1", "saliency-gini", "margin"))
    assert found["slope-l1"].isnan().all()
    assert found["saliency-gini"].isnan().all()
    assert bool(torch.isfinite(found["margin"]).all())
