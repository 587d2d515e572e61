"""The operation that hides a gradient is named, and nothing of a network that hides none."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import medrobust as mr
from medrobust import Classifier
from medrobust.attacks.masking import causes, sentence
from medrobust.experiments.gradient_check import examined, gradient_check
from tests.defences import DEFENCES, Around
from tests.nets import bumpy

BEFORE, AFTER = "own code before its first layer", "own code after its last layer"
HIDDEN: dict[str, tuple[str, str]] = {
    "8 bit": ("`round`", BEFORE),
    "16 levels": ("`round`", BEFORE),
    "3 bit": ("`round`", BEFORE),
    "JPEG": ("code outside torch (numpy, Pillow)", BEFORE),
    "thermometer code": ("`gt`", BEFORE),
    "k winners take all": ("", "`body.2` (Winners)"),
    "tanh(1000 logits)": ("`tanh`", AFTER),
    "clipped, rounded logits": ("`round`", AFTER),
    "hard vote": ("`argmax`", AFTER),
    "detached": ("`detach`", BEFORE),
    "negated gradient": ("a hook that changes the gradient", "`body.0` (Conv2d)"),
    "random gradient": ("a hook that changes the gradient", "`body.0` (Conv2d)"),
    "negated by a function": ("`NegatedGradient`", BEFORE),
    "random by a function": ("`RandomGradient`", BEFORE),
    "stairs for ReLU": ("`round`", "`body.2` (Stairs)"),
    "shattered ReLU": ("`sin`", "`body.2` (Shattered)"),
}
HONEST = ("median filter", "distilled at T = 100", "half precision", "soft vote", "BatchNorm of the batch")


def of(net: nn.Module) -> tuple[Classifier, Tensor]:
    """The classifier, and an image of each decision."""
    images = torch.rand(16, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    made = Classifier(net.eval(), ["a", "b", "c"], channels=1, outputs="logits", batch_size=8)
    made.ready(images[:8])
    decisions = made.predict(images)
    return made, images[[int((decisions == d).nonzero()[0]) for d in decisions.unique()]]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", HIDDEN)
def test_what_hides_the_gradient_is_named_and_where(name: str) -> None:
    text = sentence(causes(*of(DEFENCES[name].wrap(bumpy().net))))
    assert all(part in text for part in HIDDEN[name]), text


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", HONEST)
def test_of_a_network_that_hides_nothing_nothing_is_named(name: str) -> None:
    assert causes(*of(DEFENCES[name].wrap(bumpy().net))) == []


def no_grad(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x) + 1e-9 * x.sum()


def hooked(net: nn.Module, x: Tensor) -> Tensor:
    x = x * 1
    if x.requires_grad:
        x.register_hook(torch.neg)
    return net(x)


def by_data(net: nn.Module, x: Tensor) -> Tensor:
    return net(x.data)


@pytest.mark.parametrize(
    ("change", "what"),
    [(no_grad, "`torch.no_grad`"), (hooked, "a hook that changes the gradient"), (by_data, "`data`")],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_ways_to_cut_it(change: Callable[[nn.Module, Tensor], Tensor], what: str) -> None:
    assert sentence(causes(*of(Around(bumpy().net, change)))).startswith(what)


def test_parts_of_one_class_are_put_together() -> None:
    class Stairs(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.round(4 * x)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.last = Stairs(), Stairs(), nn.Linear(256, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.one(x[:, :1]).flatten(1) + self.two(x).flatten(1))

    torch.manual_seed(0)
    assert sentence(causes(*of(Twice()))) == "`round` in `one` (Stairs) and 1 more of that class"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_check_says_it() -> None:
    made, _ = of(DEFENCES["3 bit"].wrap(bumpy().net))
    images = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    data = mr.data.from_arrays((255 * images[:, 0]).byte().numpy(), made.predict(images).numpy(), made.classes)
    check = gradient_check(examined(made, data, 0, seek=True))
    assert "is masked by `round` in the network's own code before its first layer (Around)" in check.detail
    assert "attacks go past it" in check.detail
    check = gradient_check(examined(made, data, 0))
    assert check.passed is False
    assert check.detail.endswith("is masked by `round` in the network's own code before its first layer (Around)")
