"""A copy of a network that computes the same function with less work, for images of one size.

Every BatchNorm that follows a convolution is folded into it; and a convolution that sees a single pixel (the last
layers of a ResNet at 28 px) keeps of its kernel the middle alone, for the rest meets only padding.

In evaluation mode a BatchNorm is a scale and a shift of each channel, so the convolution before it can carry both
(Markuš 2018 and every inference engine). What the copy answers differs from the network by rounding only; whether it
does is checked on random images, and where it does not there is no copy.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

AGREES = 1e-4
"""Largest difference of logits, relative to the largest."""
GRADIENT_AGREES = 1e-2
"""Length of the difference of input gradients, relative: rounding moves a few units across the kink of their ReLU."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Bfloat16(nn.Module):
    """A network that computes in bfloat16 and returns float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.bfloat16()

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.net(images.bfloat16())
        return out.float()


def folded(net: nn.Module, shape: Sequence[int]) -> nn.Module | None:
    """A folded copy of ``net``, which is in evaluation mode and takes images (n, *shape); None where nothing folds.

    Which BatchNorm follows which convolution is seen by running the network once, so it works for any module.
    """
    try:
        folded_net = copy.deepcopy(net)
    except Exception:  # whatever a user's module raises: a network that cannot be copied is used as it is
        return None
    pairs, single = _follow(folded_net, shape)
    if not pairs and not single:
        return None
    for lonely in single:
        _keep_middle(lonely)
    places = {module: (parent, name) for parent in folded_net.modules() for name, module in parent.named_children()}
    for convolution, norm in pairs:
        _absorb(convolution, norm)
        parent, name = places[norm]
        setattr(parent, name, _rest(norm))
    return folded_net if _same(net, folded_net, shape) else None


def _follow(net: nn.Module, shape: Sequence[int]) -> tuple[list[tuple[nn.Module, _BatchNorm]], list[nn.Conv2d]]:
    """Pairs of a convolution and the BatchNorm that alone reads what it gives, each used once; and the convolutions
    that see one pixel."""
    single: list[nn.Conv2d] = []
    came: dict[int, tuple[nn.Module, Tensor]] = {}
    read: dict[nn.Module, list[_BatchNorm]] = {}
    calls: dict[nn.Module, int] = {}

    def before(module: nn.Module, given: tuple[object, ...]) -> None:
        calls[module] = calls.get(module, 0) + 1
        source = came.get(id(given[0])) if given else None
        if type(module) is nn.Conv2d and isinstance(given[0], Tensor) and _sees_one_pixel(module, given[0]):
            single.append(module)
        if source is not None and isinstance(module, _BatchNorm):
            read.setdefault(source[0], []).append(module)

    def after(module: nn.Module, _: object, out: object) -> None:
        # other subclasses may change their weights on the way
        supported = type(module) in CONVOLUTIONS or type(module).__name__ == "Conv2dSame"
        if supported and isinstance(out, Tensor):
            came[id(out)] = (module, out)  # the tensor is kept, or its id could be given to another

    hooks = []
    for module in net.modules():
        if isinstance(module, (*CONVOLUTIONS, _BatchNorm)):
            hooks += [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        with torch.no_grad():
            net(torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).to(_where(net)))
    finally:
        for hook in hooks:
            hook.remove()
    pairs = [
        (convolution, norms[0])
        for convolution, norms in read.items()
        if len(norms) == 1 and calls[convolution] == calls[norms[0]] == 1 and _foldable(norms[0])
    ]
    return pairs, [c for c in single if calls[c] == 1]


def _sees_one_pixel(convolution: nn.Conv2d, given: Tensor) -> bool:
    """A 1 x 1 input in the middle of the kernel, surrounded by zeros."""
    centred = all(
        isinstance(p, int) and k > 1 and k == 2 * p + 1
        for k, p in zip(convolution.kernel_size, convolution.padding, strict=False)
    )
    return (
        centred and given.shape[2:] == (1, 1) and convolution.padding_mode == "zeros" and convolution.dilation == (1, 1)
    )


def _keep_middle(convolution: nn.Conv2d) -> None:
    row, column = (k // 2 for k in convolution.kernel_size)
    middle = convolution.weight.detach()[:, :, row : row + 1, column : column + 1].clone()
    convolution.weight = nn.Parameter(middle, requires_grad=False)
    convolution.kernel_size, convolution.padding, convolution.stride = (1, 1), (0, 0), (1, 1)
    convolution._reversed_padding_repeated_twice = [0, 0, 0, 0]  # kept beside the padding by torch


def _foldable(norm: _BatchNorm) -> bool:
    """A plain BatchNorm with running statistics, or timm's, which holds an activation as well."""
    plain = type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    with_activation = type(norm).__name__ == "BatchNormAct2d" and hasattr(norm, "act") and hasattr(norm, "drop")
    return (plain or with_activation) and norm.running_mean is not None and norm.running_var is not None


def _rest(norm: _BatchNorm) -> nn.Module:
    """What is left of it to be done."""
    rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
    if rest:
        return nn.Sequential(*rest).eval()
    return nn.Identity().eval()


def _absorb(convolution: nn.Module, norm: _BatchNorm) -> None:
    assert isinstance(convolution, CONVOLUTIONS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    # in double, and rounded once
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.detach().double()
    if convolution.bias is not None:
        shift = shift + convolution.bias.detach().double() * scale
    weight = convolution.weight.detach()
    wide = scale.view(-1, *([1] * (weight.ndim - 1)))
    # laid out in memory as it was: the layout decides which kernels run
    convolution.weight = nn.Parameter(torch.empty_like(weight).copy_(weight.double() * wide), requires_grad=False)
    convolution.bias = nn.Parameter(shift.to(weight.dtype), requires_grad=False)


def _same(net: nn.Module, folded_net: nn.Module, shape: Sequence[int]) -> bool:
    images = torch.rand(2, *shape, generator=torch.Generator().manual_seed(1)).to(_where(net))
    (logits, gradient), (folded_logits, slope) = _both(net, images), _both(folded_net, images)
    close = (logits - folded_logits).abs().max() <= AGREES * logits.abs().max()
    return bool(close) and bool((gradient - slope).norm() <= GRADIENT_AGREES * gradient.norm())


def _both(net: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    with torch.enable_grad():
        out = net(images)
    pull = torch.linspace(-1, 1, out.numel(), device=out.device).view_as(out)
    if not out.requires_grad:
        return out, torch.zeros_like(images)
    (gradient,) = torch.autograd.grad(out, images, pull, allow_unused=True)
    return out.detach(), torch.zeros_like(images) if gradient is None else gradient


def _where(net: nn.Module) -> torch.device:
    first = next(net.parameters(), None)
    return torch.device("cpu") if first is None else first.device
