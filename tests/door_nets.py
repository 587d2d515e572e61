"""Networks of one's own with hand-set weights, named on the command line as tests.door_nets:NAME."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from . import vendor_nets


class Bright(nn.Module):
    """Output 1 is high for bright images, from about mid-grey up."""

    def __init__(self, turned: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(4, 2)
        self.turned = turned
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([0.5, 0.9, 1.1, 1.5]).view(4, 1, 1, 1).expand(4, 1, 3, 3) / 9)
            self.head.weight.copy_(torch.tensor([[-10.0], [10.0]]).expand(2, 4))
            self.head.bias.copy_(torch.tensor([18.5, -18.5]))  # zero padding makes the borders darker

    def forward(self, x: Tensor) -> Tensor:
        raw = self.head(torch.relu(self.conv(x)).mean((2, 3)))
        return raw.flip(1) if self.turned else raw


class OfTheBatch(Bright):
    """An image's answer depends on the others in its batch, a little."""

    def forward(self, x: Tensor) -> Tensor:
        raw = super().forward(x)
        return raw - 0.1 * raw.mean(0)


class Squashed(Bright):
    """Logits between 0 and 1, as probabilities are."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sigmoid()


def in_order() -> nn.Module:
    return Bright()


def swapped() -> nn.Module:
    return Bright(turned=True)


def of_the_batch() -> nn.Module:
    return OfTheBatch()


def squashed() -> nn.Module:
    return Squashed()


def scripted() -> nn.Module:
    return vendor_nets.scripted(Bright())
