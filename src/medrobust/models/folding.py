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
from typing import NamedTuple

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
    copied = _copied(net, shape, {})
    return None if copied is None else copied[0]


class Following:
    """A folded copy of a network whose weights change, as in training: ``refresh`` takes them over.

    net: the copy, in evaluation mode. What does not fold is the network's own parameters and buffers, not copies.
    """

    def __init__(self, net: nn.Module, folds: Sequence[_Fold]) -> None:
        self.net, self._folds = net, folds

    @classmethod
    def of(cls, net: nn.Module, shape: Sequence[int]) -> Following | None:
        """Of ``net``, which is in evaluation mode and takes images (n, *shape); None where nothing folds."""
        copied = _copied(net, shape, {id(t): t for t in (*net.parameters(), *net.buffers())})
        return None if copied is None else cls(*copied)

    def refresh(self) -> None:
        """Take over the weights and statistics that the network has now."""
        for fold in self._folds:
            fold.refresh()


class _Fold(NamedTuple):
    """A convolution of a network, the BatchNorm that it takes in, and the convolution that stands for both."""

    convolution: nn.Module
    norm: _BatchNorm | None
    copy: nn.Module
    single: bool

    def weights(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the copy; in double, and rounded once."""
        assert isinstance(self.convolution, CONVOLUTIONS)
        weight, bias = self.convolution.weight.detach(), self.convolution.bias
        if self.single:
            row, column = (k // 2 for k in weight.shape[2:])
            weight = weight[:, :, row : row + 1, column : column + 1]
        if self.norm is None:
            return weight, None if bias is None else bias.detach()
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.detach().double()
        shift = -norm.running_mean.double() * scale
        if norm.bias is not None:
            shift = shift + norm.bias.detach().double()
        if bias is not None:
            shift = shift + bias.detach().double() * scale
        return weight.double() * scale.view(-1, *([1] * (weight.ndim - 1))), shift

    def apply(self) -> None:
        """Give the copy weights of its own."""
        assert isinstance(self.copy, CONVOLUTIONS)
        given, (weight, bias) = self.copy.weight, self.weights()
        # laid out in memory as it was: the layout decides which kernels run
        made = torch.empty_like(given[..., :1, :1] if self.single else given).copy_(weight)
        self.copy.weight = nn.Parameter(made, requires_grad=False)
        if bias is not None:
            self.copy.bias = nn.Parameter(bias.to(given.dtype, copy=True), requires_grad=False)
        if self.single:
            assert isinstance(self.copy, nn.Conv2d)
            self.copy.kernel_size, self.copy.padding, self.copy.stride = (1, 1), (0, 0), (1, 1)
            self.copy._reversed_padding_repeated_twice = [0, 0, 0, 0]  # kept beside the padding by torch

    def refresh(self) -> None:
        """Write the weights into the copy's own."""
        assert isinstance(self.copy, CONVOLUTIONS)
        weight, bias = self.weights()
        self.copy.weight.copy_(weight)
        if bias is not None:
            assert self.copy.bias is not None
            self.copy.bias.copy_(bias)


def _copied(net: nn.Module, shape: Sequence[int], shared: dict[int, Tensor]) -> tuple[nn.Module, list[_Fold]] | None:
    """The folded copy of ``net`` and what folds; shared: tensors by id that both hold."""
    try:
        folded_net = copy.deepcopy(net, dict(shared))
    except Exception:  # whatever a user's module raises: a network that cannot be copied is used as it is
        return None
    pairs, single = _follow(folded_net, shape)
    if not pairs and not single:
        return None
    of = dict(zip(folded_net.modules(), net.modules(), strict=True))
    norms: dict[nn.Module, _BatchNorm] = dict(pairs)
    places = {module: (parent, name) for parent in folded_net.modules() for name, module in parent.named_children()}
    folds = []
    for convolution in dict.fromkeys([*norms, *single]):
        norm = of[norms[convolution]] if convolution in norms else None
        assert norm is None or isinstance(norm, _BatchNorm)
        folds.append(_Fold(of[convolution], norm, convolution, convolution in single))
        folds[-1].apply()
    for norm in norms.values():
        parent, name = places[norm]
        setattr(parent, name, _rest(norm))
    return (folded_net, folds) if _same(net, folded_net, shape) else None


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
