"""The network that every library gets in the benchmarks: pixels in [0, 1] to logits, its gradient rows counted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import medrobust as mr


class Count:
    """One number, shared by all copies of a network: medrobust searches with a copy."""

    def __init__(self) -> None:
        self.rows = 0

    def __deepcopy__(self, _: Any) -> Count:
        return self


class Counted(nn.Module):
    """A classifier's network with its normalisation, counting the rows whose gradient will be wanted."""

    def __init__(self, clf: mr.Classifier) -> None:
        super().__init__()
        self.net = clf.net.eval().requires_grad_(False)
        self.register_buffer("mean", torch.tensor(clf.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(clf.std).view(1, -1, 1, 1))
        self.count = Count()
        self.eval()  # torchattacks leaves a network in the mode of its outermost module

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() and x.requires_grad:
            self.count.rows += x.shape[0]
        out: Tensor = self.net((x - self.mean) / self.std)
        return out


def images_for(clf: mr.Classifier, spec: str, n: int) -> tuple[str, Tensor, Tensor]:
    """Name, images and labels of n test images, drawn by class; all channels that the network takes."""
    data = mr.data.load(spec, size=clf.size)
    data = data.split("test") if data.split_given or not data.name.startswith("medmnist:cifar") else data
    part = data.sample(n, 0)
    x, y = part.tensors()
    if clf.channels and x.shape[1] != clf.channels:
        x = x.repeat(1, clf.channels, 1, 1)
    return data.name, x, y
