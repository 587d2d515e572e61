"""What every method for universal perturbations keeps, whatever the network, the goal and the norm."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import medrobust as mr
from medrobust.universal import UNIVERSAL
from tests.nets import grey, linear

SETTINGS = [
    ("softmax", 2, mr.Untargeted(), mr.Linf),
    ("logit", 2, mr.Untargeted(), mr.L2),
    ("logit", 2, mr.Targeted(1), mr.Linf),
    ("softmax", 4, mr.Targeted(1), mr.L2),
    ("softmax", 4, mr.Untargeted(), mr.Linf),
]
"""Head, classes, goal, norm: each pair of a head and a goal, and each goal in both norms."""


FEATURES = {"gd", "trm", "psp"}
"""Methods that raise features: they have no target."""


def toward(name: str, target: int) -> mr.threat.Goal:
    return mr.Untargeted() if name in FEATURES else mr.Targeted(target)


class Lazy:
    """Images that count how many were in memory at once."""

    name = "lazy"

    def __init__(self, images: torch.Tensor) -> None:
        self.held, self.most = images, 0

    def __len__(self) -> int:
        return len(self.held)

    def images(self, indices: object) -> torch.Tensor:
        index = np.asarray(indices)
        self.most = max(self.most, len(index))
        return self.held[torch.as_tensor(index)]


def bordered(n: int = 40, channels: int = 1) -> torch.Tensor:
    """Images with black and white pixels, as medical images have."""
    images = grey(n, channels=channels)
    images[:, :, 0], images[:, :, -1] = 0.0, 1.0
    return images


@pytest.mark.parametrize(("head", "classes", "goal", "norm"), SETTINGS)
@pytest.mark.parametrize("name", UNIVERSAL)
def test_a_method_keeps_its_promises(name, head, classes, goal, norm):
    clf, images = linear(classes, head=head), bordered()
    ball, told = norm.relative(0.2, images), []
    if name in FEATURES and isinstance(goal, mr.Targeted):
        with pytest.raises(mr.InputError, match="no target"):
            UNIVERSAL[name]()(clf, images, goal, ball)
        return
    lazy = Lazy(images)
    clf.net.train()
    method = UNIVERSAL[name]()
    v = method(clf, lazy, goal, ball, seed=3, advance=told.append)

    # the ball and the box hold; the caller's network is as it was
    assert v.delta.shape == images.shape[1:]
    assert v.size <= ball.eps + 1e-6
    shown = v.apply(images)
    assert shown.min() >= 0
    assert shown.max() <= 1
    assert all(m.training for m in clf.net.modules())
    assert all(p.requires_grad for p in clf.net.parameters())

    # a seed gives the same bytes from a tensor and from lazy images, of which few are in memory
    again = UNIVERSAL[name]()(clf, images, goal, ball, seed=3)
    assert torch.equal(v.delta, again.delta)
    assert v.history == again.history
    assert lazy.most <= max(64, clf.batch_size(images.shape))

    # it says how it was made, and never looks without counting
    assert v.nonzero or v.why
    assert v.provenance["images"] == {"name": "lazy", "n": len(images)}
    assert v.provenance["classifier"] == clf.digest()
    assert v.provenance["queries"] >= v.provenance["gradients"]
    assert sum(told) >= v.provenance["queries"]
    assert all({"rate"} <= set(entry) for entry in v.history)

    # it did something: more than what random perturbations of its size do
    outcome = mr.universal.judge(clf, images, v)
    assert outcome.legal
    chance = [mr.universal.judge(clf, images, c) for c in mr.universal.controls(clf, images, ball, seed=3)]
    # the published method may be starved of updates; raised features of a linear network are the clean answers
    if name in {"sim", *FEATURES}:
        return
    if v.target is None:
        assert outcome.fooling_rate.value > max(c.fooling_rate.value for c in chance)
    else:
        assert outcome.targeted_success.value > max((c.after == 1).mean() for c in chance)
        assert outcome.targeted_success.value > outcome.targeted_base.value


@pytest.mark.parametrize("name", UNIVERSAL)
def test_colour_images_and_a_grey_image_for_a_colour_network(name):
    images = grey(24, channels=1)
    clf = linear(3, channels=3)
    v = UNIVERSAL[name]()(clf, images, toward(name, 2), mr.Linf(0.1))
    assert v.delta.shape == (1, 6, 6)
    w = UNIVERSAL[name]()(clf, grey(24, channels=3), toward(name, 2), mr.Linf(0.1))
    assert w.delta.shape == (3, 6, 6)


@pytest.mark.parametrize("name", UNIVERSAL)
def test_an_eps_of_zero_moves_nothing_and_says_so(name):
    v = UNIVERSAL[name]()(linear(3), grey(12), toward(name, 2), mr.L2(0.0))
    assert not v.nonzero
    assert v.why


@pytest.mark.parametrize("name", UNIVERSAL)
def test_what_can_not_be_asked_for_is_refused(name):
    clf, images, method = linear(3), grey(8), UNIVERSAL[name]()
    with pytest.raises(mr.InputError, match=r"whatever the label: give Untargeted\(\)"):
        method(clf, images, mr.Untargeted(torch.zeros(8, dtype=torch.long)), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match="one target for all"):
        method(clf, images, mr.Targeted(torch.zeros(8, dtype=torch.long)), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match="target class 3 does not exist"):
        method(clf, images, mr.Targeted(3), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match="one eps"):
        method(clf, images, mr.Targeted(1), mr.Linf(0.1).at(torch.full((8,), 0.1)))
    with pytest.raises(mr.InputError, match="at least one image"):
        method(clf, images[:0], toward(name, 1), mr.Linf(0.1))
    with pytest.raises(mr.InputError, match="normalised already"):
        method(clf, images * 4, toward(name, 1), mr.Linf(0.1))
