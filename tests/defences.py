"""Defences that hide a gradient or answer at random, each beside a stand-in for an attack that knows it.

Every defence takes a network of images in [0, 1]. Sources: Athalye et al. 2018 (arXiv:1802.00420), Tramer et al. 2020
(arXiv:2002.08347), Carlini & Wagner 2017 (arXiv:1608.04644), Xie et al. 2018 (arXiv:1711.01991), Xiao et al. 2020
(arXiv:1905.10510), Buckman et al. 2018.
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from medrobust.defences import JPEG

Change = Callable[[nn.Module, Tensor], Tensor]
Wrap = Callable[[nn.Module], nn.Module]


class Around(nn.Module):
    """A network with something done to its images, its outputs or its gradient."""

    def __init__(self, net: nn.Module, change: Change) -> None:
        super().__init__()
        self.net, self.change = net, change

    def forward(self, images: Tensor) -> Tensor:
        return self.change(self.net, images)


class Defence(NamedTuple):
    """wrap: the defended network. known: the same answers as nearly as can be, with a gradient to follow: for an attack
    that knows the defence. random: it answers differently every time."""

    wrap: Wrap
    known: Wrap
    random: bool = False


def through(out: Tensor, instead: Tensor) -> Tensor:
    return out.detach() + instead - instead.detach()


def ramp(images: Tensor, out: Tensor) -> Tensor:
    """The outputs, with a small linear term that gives attacks a gradient to follow."""
    return out + 1e-5 * images.flatten(1).sum(1, keepdim=True) * torch.linspace(-1, 1, out.shape[1])


def quantised(images: Tensor, levels: int) -> Tensor:
    return torch.round(images * (levels - 1)) / (levels - 1)


def jpeg(images: Tensor) -> Tensor:
    """Quality 60, through Pillow."""
    done = []
    for image in images.detach():
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        stream = io.BytesIO()
        Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(stream, "JPEG", quality=60)
        read = np.asarray(Image.open(stream)).astype(np.float32) / 255
        done.append(torch.from_numpy(read.reshape(pixels.shape)).permute(2, 0, 1))
    return torch.stack(done)


def kept(images: Tensor) -> Tensor:
    """What an attacker follows who knows the quality: each frequency by how finely it is kept."""
    return JPEG(60).followed(images, 1)


def median(images: Tensor) -> Tensor:
    around = F.pad(images, (1, 1, 1, 1), mode="reflect").unfold(2, 3, 1).unfold(3, 3, 1)
    return around.flatten(4).median(-1).values


def thermometer(images: Tensor) -> Tensor:
    """Sixteen thresholds, and the code read as a grey level."""
    return torch.stack([(images > level).float() for level in torch.linspace(0.03, 0.97, 16)]).mean(0)


def resized_and_padded(images: Tensor) -> Tensor:
    side = images.shape[-1]
    small = int(torch.randint(side - max(2, side // 8), side + 1, ()))
    left, top = (int(torch.randint(0, side - small + 1, ())) for _ in range(2))
    shrunk = F.interpolate(images, (small, small), mode="bilinear", align_corners=False)
    return F.pad(shrunk, (left, side - small - left, top, side - small - top))


def noisy(images: Tensor) -> Tensor:
    return images + 8 / 255 * torch.randn_like(images)


SHIFTS = (-0.02, 0.0, 0.02)


def votes(net: nn.Module, images: Tensor) -> Tensor:
    """(3, n, k): logits of three copies of each image, brighter and darker."""
    return torch.stack([net(images + shift) for shift in SHIFTS])


def hard_vote(net: nn.Module, images: Tensor) -> Tensor:
    each = votes(net, images)
    return F.one_hot(each.argmax(-1), each.shape[-1]).float().mean(0)


class Winners(nn.Module):
    """A tenth of the activations, the largest (Xiao et al. 2020)."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        least = flat.topk(max(1, flat.shape[1] // 10), 1).values[:, -1:]
        return torch.where(flat >= least, flat, torch.zeros_like(flat)).view_as(x)


class Stairs(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.round(F.relu(x) * 4) / 4


class Shattered(nn.Module):
    """ReLU with a ripple of a thousandth whose slope is fifty times that of the ReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) + 1e-3 * torch.sin(5e4 * x)


class BatchStatistics(nn.Module):
    """BatchNorm that takes mean and variance from the batch, in evaluation too."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(x, None, None, self.norm.weight, self.norm.bias, training=True, eps=self.norm.eps)


class NegatedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return -gradients[0]


class RandomGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return torch.randn_like(gradients[0]) * gradients[0].abs().mean()


def replaced(net: nn.Module, kind: type[nn.Module], make: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """A copy in which every module of that kind is another."""
    net = copy.deepcopy(net)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                setattr(module, name, make(child))
    return net


def hooked(net: nn.Module, hook: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy whose first layer with weights sends back another gradient."""
    net = copy.deepcopy(net)
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    first.register_full_backward_hook(lambda module, into, outof: (hook(into[0]),) if into[0] is not None else None)
    return net


def changed(change: Callable[[Tensor], Tensor], *, linear: bool = True) -> Wrap:
    """Images are changed before the network. linear: with the linear term."""
    return lambda net: Around(net, lambda n, x: ramp(x, n(change(x))) if linear else n(change(x)))


def passed(change: Callable[[Tensor], Tensor]) -> Wrap:
    return lambda net: Around(net, lambda n, x: n(through(change(x), x)))


def mean_of(change: Callable[[Tensor], Tensor], draws: int = 8) -> Wrap:
    return lambda net: Around(net, lambda n, x: torch.stack([n(change(x)) for _ in range(draws)]).mean(0))


def itself(net: nn.Module) -> nn.Module:
    return net


def _relu(make: Callable[[], nn.Module]) -> Wrap:
    return lambda net: replaced(net, nn.ReLU, lambda _: make())


def dropped(x: Tensor) -> Tensor:
    return F.dropout(x, 0.2, training=True)


DEFENCES: dict[str, Defence] = {
    "8 bit": Defence(changed(lambda x: quantised(x, 256)), passed(lambda x: quantised(x, 256))),
    "16 levels": Defence(changed(lambda x: quantised(x, 16)), passed(lambda x: quantised(x, 16))),
    "3 bit": Defence(changed(lambda x: quantised(x, 8)), passed(lambda x: quantised(x, 8))),
    "JPEG": Defence(changed(jpeg), lambda net: Around(net, lambda n, x: n(through(jpeg(x), kept(x))))),
    "median filter": Defence(changed(median, linear=False), changed(median, linear=False)),
    "thermometer code": Defence(changed(thermometer), passed(thermometer)),
    "k winners take all": Defence(_relu(Winners), itself),
    "distilled at T = 100": Defence(lambda net: Around(net, lambda n, x: 100 * n(x)), itself),
    "tanh(1000 logits)": Defence(lambda net: Around(net, lambda n, x: ramp(x, torch.tanh(1000 * n(x)))), itself),
    "clipped, rounded logits": Defence(
        lambda net: Around(net, lambda n, x: ramp(x, torch.round(4 * n(x).clamp(-3, 3)) / 4)), itself
    ),
    "half precision": Defence(lambda net: Around(copy.deepcopy(net).half(), lambda n, x: n(x.half()).float()), itself),
    "dropout": Defence(changed(dropped, linear=False), mean_of(dropped), random=True),
    "random resize and pad": Defence(
        changed(resized_and_padded, linear=False), mean_of(resized_and_padded), random=True
    ),
    "input noise": Defence(changed(noisy, linear=False), mean_of(noisy), random=True),
    "hard vote": Defence(
        lambda net: Around(net, lambda n, x: ramp(x, hard_vote(n, x))),
        lambda net: Around(net, lambda n, x: votes(n, x).softmax(-1).mean(0).log()),
    ),
    "soft vote": Defence(
        lambda net: Around(net, lambda n, x: votes(n, x).softmax(-1).mean(0).log()),
        lambda net: Around(net, lambda n, x: votes(n, x).softmax(-1).mean(0).log()),
    ),
    "detached": Defence(lambda net: Around(net, lambda n, x: ramp(x, n(x.detach()))), itself),
    "negated gradient": Defence(lambda net: hooked(net, torch.neg), itself),
    "random gradient": Defence(lambda net: hooked(net, lambda g: torch.randn_like(g) * g.abs().mean()), itself),
    "negated by a function": Defence(lambda net: Around(net, lambda n, x: n(NegatedGradient.apply(x))), itself),
    "random by a function": Defence(lambda net: Around(net, lambda n, x: n(RandomGradient.apply(x))), itself),
    "stairs for ReLU": Defence(_relu(Stairs), itself),
    "shattered ReLU": Defence(_relu(Shattered), itself),
    "BatchNorm of the batch": Defence(
        lambda net: replaced(net, nn.BatchNorm2d, BatchStatistics),
        lambda net: replaced(net, nn.BatchNorm2d, BatchStatistics),
    ),
}
"""24 defences, two of them twice (the gradient changed by a hook and by a function)."""
