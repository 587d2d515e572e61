"""A convolutional network small enough to train in seconds: for tests, first looks and teaching."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn


class SmallCNN(nn.Module):
    """Three stages of 3x3 convolutions with BatchNorm, global average pooling, one linear layer.

    width: channels of the first stage; every stage halves the side and doubles the channels. depth: convolutions a
    stage, the first of them strided. 24 thousand weights by default, about 16 times as many at four times the width.

    Takes (n, channels, h, w) of 8 pixels or more a side, returns logits (n, outputs).
    """

    def __init__(self, outputs: int, channels: int, width: int = 16, depth: int = 1) -> None:
        super().__init__()
        widths = (channels, width, 2 * width, 4 * width)
        self.features = nn.Sequential(*(self._stage(into, out, depth) for into, out in pairwise(widths)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(widths[-1], outputs)

    @staticmethod
    def _stage(into: int, out: int, depth: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        for i in range(depth):
            convolution = nn.Conv2d(out if i else into, out, 3, stride=1 if i else 2, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(out), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.features(images)).flatten(1))
        return logits
