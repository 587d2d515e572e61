"""Bounds of small networks: exact where that is known, and never beyond what an attack reaches."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust.attacks import ATTACKS, sweep
from medrobust.certified import METHODS, WRONG, graph_of, margin, proved
from medrobust.errors import InputError
from medrobust.threat.balls import TOLERANCE
from tests.attacks.test_contract import balls, make
from tests.nets import bumpy, grey, linear

GRID = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03)
LONG = tuple(12 * e for e in GRID)
"""Of L2."""


class Varied(nn.Module):
    """Every kind of layer that is covered, written as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.inner = nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.shortcut = nn.Conv2d(6, 8, 1, stride=2)
        self.down = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8 * 4 + 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.stem(x), 3, 2, 1)
        x = x + nn.functional.leaky_relu(self.inner(x), 0.1)
        y = nn.functional.relu6(self.down(x))
        y += self.shortcut(x)
        pooled = nn.functional.avg_pool2d(nn.functional.pad(y, (0, 1, 1, 0)), 2, ceil_mode=True)[:, :, :2, :2]
        middle = torch.cat([pooled.flatten(1), y.mean((2, 3)) / 2], 1).clamp(-3, 4)
        return self.head(-middle)


@pytest.fixture(scope="module")
def varied():
    torch.manual_seed(3)
    net = Varied().train()
    with torch.no_grad():
        net(torch.rand(16, 3, 16, 16))  # statistics of BatchNorm
    net.eval()
    return mr.Classifier(net, ["a", "b", "c"], mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), outputs="logits")


def of(head: str):
    """A network with one of the three heads, and images with its answers as labels."""
    clf = bumpy(classes=3, seed=1)
    if head == "logit":
        net = nn.Sequential(clf.net, nn.Linear(3, 1))
        with torch.no_grad():
            net[1].weight.copy_(torch.tensor([[1.0, -1.0, 0.2]]))
        clf = mr.Classifier(net, ["a", "b"], head="logit", threshold=0.4)
    elif head == "multilabel":
        clf = mr.Classifier(clf.net, clf.classes, head="multilabel", threshold=(0.3, 0.5, 0.6))
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    images[:, :, :2] = 0.0  # black border, as most medical images have
    labels = clf.predict(images)
    if head == "multilabel":
        labels[0, 1] = -1  # unknown
    return clf, images, labels


@pytest.mark.parametrize("head", ["softmax", "logit", "multilabel"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_of_a_linear_classifier_the_bound_is_exact(head, norm):
    clf = linear(3 if head != "logit" else 2, side=5, head=head).at(None, outputs="logits")
    images = grey(4, side=5)
    labels = clf.predict(images)
    graph, eps = graph_of(clf, images), 0.01
    needed = clf.head.needed(labels, len(clf.classes)).double()
    assert torch.equal((needed @ clf.logits(images).double()[:, :, None] > 0).all(1)[:, 0], torch.ones(4).bool())
    jacobian = clf.head.canonical(clf.net.weight.detach().T).T.double()  # of the logits
    for i in range(4):
        weight = needed[i] @ jacobian
        length = weight.abs().sum(1) if norm == "linf" else weight.norm(dim=1)
        exact = (needed[i] @ clf.logits(images[i : i + 1])[0].double() - (eps + TOLERANCE) * length).min()
        for method in METHODS:
            assert margin(graph, needed[i], images[i : i + 1], norm, eps, method) == pytest.approx(
                float(exact), abs=1e-4
            )


def test_pixels_do_not_leave_the_range():
    """At a black and a white pixel only half of the ball is there; in L2 the rest of the length is free for others."""
    clf = linear(2, side=2)
    with torch.no_grad():
        clf.net.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [-3.0, 3.0, 1.0, 0.0]]))
        clf.net.bias.copy_(torch.tensor([0.0, 10.0]))
    image, needed = torch.tensor([0.5, 0.0, 0.5, 1.0]).view(1, 1, 2, 2), torch.tensor([[-1.0, 1.0]]).double()
    graph, gap = graph_of(clf, image), float(clf.logits(image)[0, 1])
    assert margin(graph, needed, image, "linf", 0.1, "ibp") == pytest.approx(gap - 0.4, abs=1e-4)
    assert margin(graph, needed, image, "l2", 0.1, "crown") == pytest.approx(gap - 0.1 * 10**0.5, abs=1e-3)
    assert margin(graph, needed, image, "l2", 50.0, "crown") == pytest.approx(gap - 2.0, abs=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_change_in_the_ball_goes_below_the_bound(varied, norm):
    images = torch.rand(3, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    images[:, :, :5] = 0.0
    labels, graph = varied.predict(images), graph_of(varied, images)
    needed, eps = varied.head.needed(labels, 3).double(), 0.004 if norm == "linf" else 0.15
    ball = mr.threat.BALLS[norm](eps)
    attack = mr.attacks.PGD(steps=30, loss=mr.threat.margin)
    attacked = attack(varied, images, mr.Untargeted(labels), ball, full=True)
    reached = varied.head.gap(varied.logits(attacked), labels)
    clean = varied.head.gap(varied.logits(images), labels)
    for i in range(3):
        bounds = [margin(graph, needed[i], images[i : i + 1], norm, eps, method) for method in METHODS]
        assert max(bounds) <= reached[i] < clean[i]
        assert bounds[0] <= bounds[1]
        if norm == "linf":  # close enough that a fault of a thousandth of the range would be noticed
            assert reached[i] - bounds[2] < 0.5 * (clean[i] - bounds[2])
        assert margin(graph, needed[i], images[i : i + 1], norm, 0.0, "crown") == pytest.approx(
            float(clean[i]), abs=1e-3
        )


@pytest.fixture(scope="module", params=["softmax", "logit", "multilabel"])
def certificates(request):
    """By norm, the proved eps of a network with that head."""
    clf, images, labels = of(request.param)
    wrong = labels.clone()
    wrong[1] = 1 - wrong[1].clamp(0, 1) if request.param != "softmax" else (wrong[1] + 1) % 3
    grids = {"linf": GRID, "l2": LONG}
    return clf, images, wrong, {n: (grid, proved(clf, images, wrong, n, grid)) for n, grid in grids.items()}


@pytest.mark.parametrize("name", ATTACKS)
def test_no_attack_breaks_what_is_proved(name, certificates):
    """Whatever norm it was made for: what it found is longer than what is proved, in both norms."""
    clf, images, labels, by_norm = certificates
    for ball in balls(name):
        grid = by_norm[ball.name][0] if ball.name in by_norm else [ball.eps / 8, ball.eps / 2, ball.eps]
        curve = sweep(make(name), clf, images, mr.Untargeted(labels), type(ball), grid, seed=1)
        turned = torch.isfinite(curve.min_eps) & (curve.min_eps > 0)
        assert curve.min_eps[1] == 0
        for norm, (_, eps) in by_norm.items():
            assert eps[1] == WRONG
            assert (eps[curve.min_eps > 0] >= 0).all()
            size = mr.threat.BALLS[norm](0.0).size(curve.images - images)
            assert (eps[turned] < size[turned]).all(), (
                f"{name} turns what is proved up to {eps[turned]} at {size[turned]}"
            )


def test_something_is_proved_and_something_is_broken(certificates):
    """Without both, the comparison with the attacks could not fail."""
    clf, images, labels, by_norm = certificates
    for norm, (grid, eps) in by_norm.items():
        assert (eps > 0).any()
        found = sweep(mr.attacks.PGD(), clf, images, mr.Untargeted(labels), mr.threat.BALLS[norm], grid).min_eps
        assert torch.isfinite(found[found > 0]).any()


class Detour(nn.Module):
    """What cannot be read off the operations that ran."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way, self.norm, self.linear = way, nn.BatchNorm2d(1), nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if self.way == "numpy":
            x = torch.from_numpy(x.detach().numpy() ** 2)
        elif self.way == "random":
            x = x + 0.1 * torch.rand(x.shape[1:])
        elif self.way == "written into":
            space = torch.zeros_like(x)
            space[:, :, 2:] = x[:, :, 2:]
            x = space
        elif self.way == "changed in place":
            kept = x.view(x.shape[0], -1)
            x.mul_(2)
            return self.linear(kept)
        elif self.way == "product":
            x = x * x
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("numpy", "do not depend on the image|answers otherwise"),
        ("random", "answers otherwise than its recorded operations"),
        ("written into", r"layer network \(Detour\) is not covered .*written into a part of a tensor"),
        ("changed in place", "changed in place"),
        ("product", r"layer network \(Detour\) is not covered .*multiplied"),
    ],
)
def test_what_is_not_covered_is_refused_in_one_line(way, message):
    torch.manual_seed(0)
    clf = mr.Classifier(Detour(way), ["a", "b"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the inspection says of it
        clf.ready(grey(3))
    with pytest.raises(InputError, match=message) as error:
        graph_of(clf, grey(3))
    assert "\n" not in str(error.value)


def test_a_layer_that_is_not_covered_is_named():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.GELU(), nn.Flatten(), nn.Linear(32, 2))
    with pytest.raises(
        InputError, match=r"layer 1 \(GELU\) is not covered by linear bounds \(aten.gelu\); .*smoothing"
    ):
        proved(mr.Classifier(net, ["a", "b"]), grey(2), torch.tensor([0, 1]), "linf", [0.1])


def test_an_image_is_proved_alike_in_any_company():
    clf, images, labels = of("softmax")
    together = proved(clf, images[:3], labels[:3], "linf", GRID, "crown-ibp")
    assert torch.equal(together[2:], proved(clf, images[2:3], labels[2:3], "linf", GRID, "crown-ibp"))
