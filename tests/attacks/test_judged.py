"""What an attack calls reached, the judge confirms: every attack, goal and head, black and white pixels, any eps."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import medrobust as mr
from medrobust.attacks import ATTACKS, run
from tests.attacks.test_contract import balls, make
from tests.nets import bumpy


class OneLogit(nn.Module):
    """The lead of the second of two classes."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.net(x)
        return logits[:, 1:] - logits[:, :1]


@pytest.fixture(scope="module")
def networks():
    two, three, seven = bumpy(2), bumpy(3), bumpy(7)
    names = two.classes
    return {
        "two": two,
        "three": three,
        "seven": seven,
        "alarmed": mr.Classifier(two.net, names, threshold=0.05),
        "calm": mr.Classifier(two.net, names, threshold=0.999),
        "logit": mr.Classifier(OneLogit(two.net), names, head="logit"),
        "logit, alarmed": mr.Classifier(OneLogit(two.net), names, head="logit", threshold=0.1),
    }


CASES = (
    ("two", 1e-6, "untargeted"),
    ("three", 1e-6, "targeted"),
    ("alarmed", 0.03, "untargeted"),
    ("calm", 0.03, "targeted"),
    ("logit", 1.0, "targeted"),
    ("logit, alarmed", 0.03, "untargeted"),
    ("seven", 0.03, "targeted"),
    ("seven", 1.0, "untargeted"),
    ("three", 0.03, "wrong before"),
)
"""Network, eps as a share of the pixel range (in L2: of 16 pixels' length), goal."""


@pytest.fixture(scope="module")
def images():
    x = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(4))
    x[0], x[1] = 0.0, 1.0
    x[2] = (x[2] > 0.5).float()
    return x


@pytest.mark.parametrize(("name", "kind"), [(name, type(ball)) for name in ATTACKS for ball in balls(name)])
def test_what_an_attack_calls_reached_the_judge_confirms(name, kind, networks, images):
    attack = make(name)
    # each case in one of the norms; of auto some, for its members are in the table themselves
    cases = CASES if len(balls(name)) == 1 else CASES[kind is mr.L2 :: 4 if name == "auto" else 2]
    for network, eps, wanted in cases:
        clf = networks[network]
        labels, k = clf.predict(images), len(clf.classes)
        goal = {
            "untargeted": mr.Untargeted(labels),
            "targeted": mr.Targeted((labels + 1) % k),
            "wrong before": mr.Untargeted((labels + torch.tensor([0, 1, 0, 1])) % k),
        }[wanted]
        ball = kind(eps if kind is mr.Linf else 256 * eps if kind in (mr.threat.L1, mr.threat.L0) else 16 * eps)
        done = run(attack, clf, images, goal, ball, seed=0)
        told = mr.judge(clf, images, done.images, goal, ball)
        case = (network, ball, wanted)
        assert told.legal.all(), case
        assert torch.equal(done.reached, told.reached), case
        assert torch.equal(done.clean, told.reached_before), case


def test_a_smallest_change_that_is_too_large_is_cut_back_and_no_success(networks, images):
    clf = networks["three"]
    goal = mr.Untargeted(clf.predict(images))
    for name in ("deepfool", "fmn", "cw-l2"):
        far = run(make(name), clf, images, goal, mr.L2(50.0), seed=0)
        near = run(make(name), clf, images, goal, mr.L2(1e-3), seed=0)
        assert far.reached.any()
        assert not near.reached.any()
        assert (near.level == 1).all()
