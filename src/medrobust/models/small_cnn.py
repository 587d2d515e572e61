"""A convolutional network small enough to train in seconds: for tests, first looks and teaching."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three strided 3x3 convolutions with BatchNorm, global average pooling, one linear layer; 24 thousand weights.

    Takes (n, channels, h, w) of 8 pixels or more a side, returns logits (n, outputs).
    """

    def __init__(self, outputs: int, channels: int, width: int = 16) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        self.features = nn.Sequential(*(self._stage(into, out) for into, out in pairwise(widths)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], outputs)

    @staticmethod
    def _stage(into: int, out: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(into, out, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU())

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.pool(self.features(images)).flatten(1))
