"""The ResNets for CIFAR-10 (He et al. 2015, arXiv:1512.03385, section 4.2).

Layer names follow akamaster/pytorch_resnet_cifar10 (BSD-2), so that its published weights load.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

# The published weights were trained on inputs normalised so; the architecture itself needs no particular one.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters: option A, subsample and pad channels with zeros."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.stride = stride
        self.pad = (out - into) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.pad or self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """A 3x3 stem and three stages of ``blocks`` blocks, 6 * blocks + 2 layers deep.

    width: channels of the first stage (16 as published), twice and four times as many in the others.
    """

    def __init__(self, blocks: int, outputs: int, channels: int, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks, stride=1)
        self.layer2 = self._stage(width, 2 * width, blocks, stride=2)
        self.layer3 = self._stage(2 * width, 4 * width, blocks, stride=2)
        self.linear = nn.Linear(4 * width, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    @staticmethod
    def _stage(into: int, out: int, blocks: int, stride: int) -> nn.Sequential:
        rest = (BasicBlock(out, out, 1) for _ in range(blocks - 1))
        return nn.Sequential(BasicBlock(into, out, stride), *rest)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean((2, 3)))
        return logits
