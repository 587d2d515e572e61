"""Tiny networks whose answers are known."""

from __future__ import annotations

import torch
from torch import nn

from medrobust import Classifier


class Linear(nn.Module):
    """Logits = weight . pixels + bias: every attack's optimum is known in closed form."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) @ self.weight.T + self.bias


def linear(
    classes: int = 2, side: int = 6, channels: int = 1, seed: int = 0, head: str = "softmax", scale: float = 1.0
):
    """A linear classifier with a bias that puts mid-grey images near its boundary."""
    g = torch.Generator().manual_seed(seed)
    outputs = 1 if head == "logit" else classes
    weight = scale * torch.randn(outputs, channels * side * side, generator=g)
    bias = -weight.sum(1) / 2 + 0.3 * scale * torch.randn(outputs, generator=g)
    names = [f"c{i}" for i in range(classes)]
    return Classifier(Linear(weight, bias), names, head=head, channels=channels)


class Bumpy(nn.Module):
    """A small convolutional network with BatchNorm and Dropout."""

    def __init__(self, classes: int = 3, channels: int = 1, seed: int = 0, gain: float = 3.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(
                nn.Conv2d(channels, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Conv2d(8, 16, 3, padding=1),
                nn.BatchNorm2d(16),
                nn.ReLU(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Dropout(0.5),
                nn.Linear(64, classes),
            )
            with torch.no_grad():
                self.body[-1].weight.mul_(gain * 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


def bumpy(classes: int = 3, channels: int = 1, seed: int = 0) -> Classifier:
    net = Bumpy(classes, channels, seed).eval()
    with torch.no_grad():  # centre the logits, so that the classes share the images
        x = torch.rand(64, channels, 16, 16, generator=torch.Generator().manual_seed(9))
        net.body[-1].bias.sub_(net(x).mean(0))
    return Classifier(net, [f"c{i}" for i in range(classes)])


def grey(n: int, side: int = 6, channels: int = 1, seed: int = 1, spread: float = 0.05) -> torch.Tensor:
    """Images around mid-grey, far from 0 and 1, so that the box does not bind."""
    g = torch.Generator().manual_seed(seed)
    return (0.5 + spread * torch.randn(n, channels, side, side, generator=g)).clamp(0.05, 0.95)
