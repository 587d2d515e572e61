"""Changes of few parameters and patches: known images, known optima, and what each of CHANGES must keep."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.attacks import CHANGES, BiasField, Exposure, Patch, PatchAnywhere, Spatial, worst_change
from medrobust.attacks.moves import Search
from medrobust.models import BlackBoxModel
from tests.nets import bumpy, linear

WIDE = {
    "patch": Patch(side=0.5, steps=8),
    "patch-anywhere": PatchAnywhere(side=0.4, along=3, steps=8),
    "spatial": Spatial(degrees=30, shift=0.2, steps=6),
    "bias-field": BiasField(factor=3, steps=6),
    "exposure": Exposure(exposure=2.5, gamma=2.5),
}
IDS = [f"im{i}" for i in range(11)]


@pytest.fixture(scope="module")
def clf():
    return bumpy(classes=3)


@pytest.fixture(scope="module")
def images():
    return torch.rand(11, 1, 16, 12, generator=torch.Generator().manual_seed(4))


def at(change, image, *parameters):
    """One image (c, h, w) at these parameters."""
    return change.apply(image[None], torch.tensor([parameters], dtype=torch.float32))[0]


# -- every change ---------------------------------------------------------------------------------------------------


def test_every_change_is_covered_here():
    assert WIDE.keys() == CHANGES.keys()
    assert all(isinstance(WIDE[name], type(make())) for name, make in CHANGES.items())


@pytest.mark.parametrize("change", WIDE.values(), ids=WIDE)
@pytest.mark.parametrize("channels", [1, 3])
def test_at_its_identity_a_change_gives_the_image_to_the_bit(change, channels):
    images = torch.rand(3, channels, 15, 12, generator=torch.Generator().manual_seed(0))
    assert torch.equal(change.apply(images, change.identity(images)), images)


@pytest.mark.parametrize("change", WIDE.values(), ids=WIDE)
def test_every_change_is_legal_keeps_to_its_box_and_beats_its_grid(change, clf, images):
    goal = mr.Untargeted(clf.predict(images))
    found = worst_change(change, clf, images, goal, full=True)
    assert found.images.shape == images.shape
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert ((found.parameters >= change.low) & (found.parameters <= change.high)).all()
    assert torch.equal(change.apply(images, found.parameters), found.images)
    assert torch.equal(mr.judge(clf, images, found.images, goal, mr.Linf(1.0)).reached, found.reached)
    assert found.reached.any()
    gradient = Search(clf, goal.prepare(clf.head, 3, 11, images.device), 11).slope(images, torch.arange(11))[2]
    for start in change.starts(images, lambda: gradient, 0, range(11)):
        margin = -clf.head.gap(clf.logits(change.apply(images, start)), clf.predict(images))
        assert (found.margin >= margin - 1e-4).all()
    first = change(clf, images, goal)
    assert torch.equal(clf.predict(first) != clf.predict(images), found.reached)


@pytest.mark.parametrize("change", WIDE.values(), ids=WIDE)
def test_a_row_gives_the_same_bytes_alone_in_any_batch_and_order(change, clf, images):
    labels = clf.predict(images)

    def attacked(rows):
        goal = mr.Untargeted(labels[rows])
        return change(clf, images[rows], goal, seed=3, ids=[IDS[i] for i in rows])

    together = attacked(list(range(11)))
    shuffled = [7, 2, 10, 0, 5]
    assert torch.equal(attacked(shuffled), together[shuffled])
    assert torch.equal(attacked([6]), together[[6]])


@pytest.mark.parametrize("change", WIDE.values(), ids=WIDE)
def test_images_that_are_wrong_already_are_returned_untouched(change, clf, images):
    goal = mr.Untargeted((clf.predict(images) + 1) % 3)
    found = worst_change(change, clf, images, goal, full=True)
    assert torch.equal(found.images, images)
    assert found.gradients.sum() == 0


@pytest.mark.parametrize("change", WIDE.values(), ids=WIDE)
def test_a_black_box_is_asked_the_grid_alone_and_a_row_leaves_with_its_first_success(change):
    asked = []

    def answer(pixels: np.ndarray) -> np.ndarray:
        asked.append(len(pixels))
        return np.where(pixels.mean((1, 2, 3)) > 0.51, "bright", "dark")

    classes = ("dark", "bright")
    clf = mr.Classifier(BlackBoxModel(answer, classes), classes)
    images = torch.full((3, 1, 12, 12), 0.5)
    images[0] = 0.01
    with pytest.warns(UserWarning, match="Only answers"):
        clf.ready(images)
    asked.clear()
    found = worst_change(change, clf, images, mr.Untargeted(torch.zeros(3, dtype=torch.long)))
    assert found.gradients.sum() == 0
    assert sum(asked) == int(found.forwards.sum())
    assert found.forwards[1] == found.forwards[2] <= found.forwards[0]
    controls = change.controls(found.parameters, images, 0, range(3))
    assert all(one.shape == found.parameters.shape for draws in controls.values() for one in draws)
    assert change.words(found.parameters[0], images[0])


@pytest.mark.parametrize(
    ("narrow", "wide"),
    [
        (Patch(side=0.3, row=0, column=0), Patch(side=0.6, row=0, column=0)),
        (Patch(side=0.4, row=0, column=0), PatchAnywhere(side=0.4, along=2)),
        (Spatial(degrees=5, shift=0.05), Spatial(degrees=40, shift=0.3)),
        (BiasField(factor=1.2), BiasField(factor=4)),
        (Exposure(1.2, 1.2), Exposure(3, 3)),
    ],
    ids=repr,
)
def test_a_wider_range_fools_no_fewer(narrow, wide, clf, images):
    goal = mr.Untargeted(clf.predict(images))
    fooled = [int(worst_change(change, clf, images, goal).reached.sum()) for change in (narrow, wide)]
    assert fooled[0] <= fooled[1]
    assert fooled[1] > 0


@pytest.mark.parametrize(("classes", "head"), [(2, "logit"), (3, "softmax"), (3, "multilabel")])
def test_every_head_and_targets(classes, head):
    clf = mr.Classifier(linear(classes, head=head, side=8).net, list("abc")[:classes], head=head)
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    whole, labels = Patch(side=1.0, steps=4), clf.predict(images)
    assert torch.equal(whole(clf, images, mr.Targeted(labels)), images)
    turned = clf.predict(whole(clf, images, mr.Untargeted(labels)))
    assert (turned != labels).view(6, -1).any(1).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Patch(side=0),
        lambda: Patch(row=1.5),
        lambda: PatchAnywhere(along=0),
        lambda: Spatial(degrees=200),
        lambda: Spatial(fill="grey"),
        lambda: BiasField(factor=0.7),
        lambda: BiasField(order=1),
        lambda: Exposure(gamma=0.5),
    ],
)
def test_ranges_that_mean_nothing_are_refused(make):
    with pytest.raises(mr.InputError, match="got"):
        make()


# -- closed forms ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["black", "edge", "mirror"])
def test_a_shift_by_whole_pixels_moves_them(fill):
    image = torch.rand(1, 10, 20, generator=torch.Generator().manual_seed(2))
    moved = at(Spatial(shift=0.1, fill=fill), image, 0, 1, -1, 0)  # one pixel down, two to the left
    assert torch.equal(moved[:, 1:, :-2], image[:, :-1, 2:])
    corner = {"black": 0.0, "edge": image[0, 0, -1], "mirror": image[0, 0, -2]}[fill]
    assert moved[0, 0, -1] == corner


def test_a_quarter_turn_is_torch_rot90_and_a_scale_of_two_repeats_the_middle():
    image = torch.rand(2, 8, 8, generator=torch.Generator().manual_seed(2))
    turned = at(Spatial(degrees=90), image, 1, 0, 0, 0)
    assert torch.allclose(turned, image.rot90(-1, (1, 2)), atol=1e-6)
    small = at(Spatial(scale=0.5, fill="black"), torch.ones(1, 8, 8), 0, 0, 0, -1)
    assert small.sum() == 16  # half as wide, half as high


def test_an_exposure_multiplies_a_gamma_is_a_power_and_a_field_keeps_to_its_factor():
    image = torch.rand(3, 9, 14, generator=torch.Generator().manual_seed(2)) / 2
    assert torch.allclose(at(Exposure(exposure=1.5), image, 1, 0), image * 1.5)
    assert torch.allclose(at(Exposure(gamma=2), image, 0, -1), image.sqrt())
    change = BiasField(factor=1.5, order=3)
    for parameters in (torch.eye(8), -torch.eye(8), torch.rand(20, 8) * 2 - 1, torch.ones(1, 8)):
        field = change.apply(image.expand(len(parameters), -1, -1, -1), parameters) / image
        assert field.min() > 1 / 1.5 - 1e-5
        assert field.max() < 1.5 + 1e-5
    lines = at(change, image, 1, 0, 0, 0, 0, 0, 0, 0) / image  # the first frequency across
    assert torch.allclose(lines, lines[:, :1].expand_as(lines), atol=1e-5)
    assert lines[0, 0, 0] == pytest.approx(1.5, rel=1e-5)


def test_the_worst_patch_of_a_linear_network_is_the_sign_of_its_weights_at_the_place_where_they_do_most():
    clf = linear(2, side=8)
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = clf.predict(images)
    weight = (clf.net.weight[1] - clf.net.weight[0]).detach().view(8, 8)
    sign = (1 - 2 * labels).view(-1, 1, 1)
    best = (weight * sign > 0).float()
    gain = (sign * weight * (best - images[:, 0])).view(5, 2, 4, 2, 4).sum((2, 4))  # of four places
    change = PatchAnywhere(side=0.5, along=2, steps=5)
    found = worst_change(change, clf, images, mr.Untargeted(labels), full=True)
    before = -clf.head.gap(clf.logits(images), labels)
    assert torch.allclose(found.margin, before + gain.flatten(1).amax(1), atol=1e-4)
    for i in range(5):
        place = int(gain[i].flatten().argmax())
        assert found.parameters[i, :2].tolist() == [place // 2, place % 2]
        cut = slice(4 * (place // 2), 4 * (place // 2) + 4), slice(4 * (place % 2), 4 * (place % 2) + 4)
        assert torch.equal(found.images[i, 0][cut], best[i][cut])


class Diagonal(nn.Module):
    """Its margin is largest for a bar along one diagonal."""

    def forward(self, x):
        axis = torch.linspace(-1, 1, x.shape[-1])
        z = (x[:, 0] * axis * axis[:, None]).mean((1, 2))
        return torch.stack([z + 0.03, -z - 0.03], 1)


def test_the_ascent_finds_a_rotation_between_those_of_the_grid():
    clf = mr.Classifier(Diagonal(), ["a", "b"], outputs="logits")
    image = torch.zeros(1, 1, 32, 32)
    image[:, :, 14:18, 4:28] = 1.0
    goal, only = mr.Untargeted(clf.predict(image)), {"degrees": 60, "shift": 0, "scale": 0}
    alone, climbed = (worst_change(Spatial(steps=k, **only), clf, image, goal, full=True).margin for k in (0, 12))
    best = -clf.head.gap(clf.logits(Spatial(**only).apply(image, torch.tensor([[-0.75, 0, 0, 0]]))), clf.predict(image))
    assert alone < best - 2e-3  # the grid has 30 and 60 degrees
    assert climbed == pytest.approx(best.item(), abs=2e-4)


def test_what_is_allowed_and_what_was_done_are_said_in_words():
    image = torch.rand(1, 20, 40)
    change = Spatial(fill="black")
    assert "scaled by 0.9 to 1.1 (black outside)" in change.range
    said = change.words(torch.tensor([-1.0, 0.5, 0.25, -1.0]), image)
    assert said == "turned by 15 degrees left, moved by 1 pixel right and 1 pixel down, scaled by 0.90"
    assert Patch().words(torch.zeros(6), image) == "patch of 2 x 2 pixels (0.5 % of the image)"
    assert Exposure().words(torch.tensor([1.0, -1.0]), image) == "brightness times 1.30, gamma 0.77"
    assert BiasField(factor=2).words(torch.zeros(8), image) == "brightness times 1.00 to 1.00"
