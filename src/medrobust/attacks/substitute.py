"""Another way back through a network: the outputs are its own, to the bit, the gradient is that of a stand-in.

What attacks need where a network's gradient does not describe it (masked gradients): BPDA (Athalye et al. 2018,
arXiv:1802.00420), the mean over noise, and differences along smooth directions (NES, Ilyas et al. 2018,
arXiv:1804.08598, on a fixed orthonormal basis).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medrobust import seeds
from medrobust.attacks.lowfreq import LowFrequency
from medrobust.attacks.straight_through import Secants, StraightThrough, functions_as_identity, resized, without_hooks
from medrobust.images import Images, Logits

Outputs = Callable[[Images], Logits]


@dataclass(frozen=True)
class Substitute:
    """hooks: without the hooks that change gradients. functions: straight through rounding, comparisons, ``detach``.
    custom: functions with a backward of their own as the identity. secants: functions of single values with the slopes
    of their secants, where their own disagree with these. entry: what happens to images before the first layer as the
    identity. exit: what happens to the outputs behind the last linear layer as the identity.
    noise: the mean over ``DRAWS`` images with normal noise of that standard deviation, in shares of the pixel range.
    smooth: what reaches the images is blurred, where fine changes are lost before the first layer (JPEG).
    frequencies: differences along that many cosines a side and channel, instead of backpropagation.
    agrees: whether the gradient agrees with finite differences (``derivative``).
    """

    hooks: bool = False
    functions: bool = False
    custom: bool = False
    secants: bool = False
    entry: bool = False
    exit: bool = False
    noise: float = 0.0
    smooth: bool = False
    frequencies: int = 0
    agrees: bool = False

    @property
    def text(self) -> str:
        """What is done on the way back, for a sentence."""
        parts = [
            *(["without the hooks on gradients"] if self.hooks and not self.functions else []),
            *(["straight through rounding, comparisons and cut gradients"] if self.functions else []),
            *(["custom derivatives as the identity"] if self.custom else []),
            *(["secants of functions whose slopes mislead"] if self.secants else []),
            *(["what comes before the first layer as the identity"] if self.entry else []),
            *(["what comes after the last layer as the identity"] if self.exit else []),
            *(["blurred"] if self.smooth else []),
            *([f"the mean over {DRAWS} images with noise of {255 * self.noise:g}/255"] if self.noise else []),
            *([f"differences along {self.frequencies} x {self.frequencies} cosines"] if self.frequencies else []),
        ]
        return ", ".join(parts)

    def logits(self, net: nn.Module, outputs: Outputs, images: Images) -> Logits:
        """``outputs(images)`` with the gradient of the stand-in. outputs: runs ``net`` on images in [0, 1]."""
        outputs = _repeated(outputs, images.device)
        if self.frequencies:
            return _Differences.apply(images, outputs, self.frequencies)  # type: ignore[no-any-return]
        with torch.no_grad():
            true = outputs(images.detach())
        if self.smooth:
            images = _Blurred.apply(images)
        if not self.noise:
            soft = self._soft(net, outputs, images)
        else:
            draws = _draws(images.shape[1:]).to(images)
            soft = torch.stack([self._soft(net, outputs, images + self.noise * draw) for draw in draws]).mean(0)
        # a stand-in that overflows has no gradient, and leaves the outputs alone
        return true + (soft - soft.detach()).nan_to_num(0.0, 0.0, 0.0)

    def _soft(self, net: nn.Module, outputs: Outputs, images: Images) -> Logits:
        with ExitStack() as stack:
            if self.hooks:
                stack.enter_context(without_hooks(net))
            if self.custom:
                stack.enter_context(functions_as_identity())
            if self.entry:
                stack.enter_context(_entered(net))
            last: list[Tensor] = stack.enter_context(_left(net)) if self.exit else []
            if self.functions:
                stack.enter_context(StraightThrough())
            if self.secants:
                stack.enter_context(Secants())
            out = outputs(images)
        fitting = [value for value in last if value.shape == out.shape]
        return torch.stack(fitting).float().mean(0) if fitting else out


def _repeated(outputs: Outputs, device: torch.device) -> Outputs:
    """``outputs`` with the same random numbers at every call: differences of a random network are those of one draw."""
    gpu = [device] if device.type == "cuda" else []
    state, others = torch.get_rng_state(), [torch.cuda.get_rng_state(d) for d in gpu]

    def same(images: Images) -> Logits:
        with torch.random.fork_rng(devices=gpu):
            torch.set_rng_state(state)
            for d, other in zip(gpu, others, strict=True):
                torch.cuda.set_rng_state(other, d)
            return outputs(images)

    return same


DRAWS = 8
"""Images with noise over which a gradient is averaged."""
STEP = 4 / 255
"""Half the length, root mean square, of a difference along a cosine."""


@lru_cache(maxsize=4)
def _draws(shape: torch.Size) -> Tensor:
    """The noise, the same for all images and steps."""
    return seeds.normal(0, "substitute/noise", list(range(DRAWS)), shape)


BLUR = (0.27, 0.46, 0.27)
"""Weights of a pixel's neighbours in each direction: a normal curve of 0.7 pixels. A wider one breaks less of JPEG."""


class _Blurred(torch.autograd.Function):
    """Images as they are; the gradient blurred."""

    @staticmethod
    def forward(ctx: Any, images: Images) -> Images:  # noqa: ARG004
        return images.clone()

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> Tensor:  # noqa: ARG004
        weights = torch.tensor(BLUR).to(pulls[0])
        channels = pulls[0].shape[1]
        kernel = torch.outer(weights, weights).expand(channels, 1, 3, 3)
        return F.conv2d(F.pad(pulls[0], (1, 1, 1, 1), mode="replicate"), kernel, groups=channels)


class _Differences(torch.autograd.Function):
    """Outputs whose derivative is made of central differences along the lowest cosines."""

    @staticmethod
    def forward(ctx: Any, images: Images, outputs: Outputs, frequencies: int) -> Logits:
        ctx.images, ctx.outputs, ctx.frequencies = images.detach(), outputs, frequencies
        with torch.no_grad():
            return outputs(ctx.images)

    @staticmethod
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor, None, None]:
        images, gradient = ctx.images, torch.zeros_like(ctx.images)
        length = STEP * images[0].numel() ** 0.5
        with torch.no_grad():
            low = LowFrequency(images.shape[1:], ctx.frequencies, images.device)
            for place in itertools.product(*map(range, low.shape)):
                pattern = low.basis(*place)
                change = ctx.outputs(images + length * pattern) - ctx.outputs(images - length * pattern)
                gradient += ((change * pulls[0]).sum(1) / (2 * length)).view(-1, 1, 1, 1) * pattern
        return gradient, None, None


@contextmanager
def _entered(net: nn.Module) -> Iterator[None]:
    """The first layer that runs takes the gradient to the network's input, past whatever lies between."""
    given: list[Tensor] = []
    first: list[nn.Module] = []

    def start(module: nn.Module, args: tuple[Any, ...]) -> None:  # noqa: ARG001
        given[:] = [a for a in args if isinstance(a, Tensor)][:1]
        first.clear()

    def enter(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not given or not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            return None
        if first and first[0] is not module and args[0].shape[1:] != given[0].shape[1:]:
            return None
        with torch._C.DisableTorchFunction():  # detaching here means just that
            instead = resized(given[0].to(args[0].dtype), args[0].shape)
            if instead is None:
                return None
            if not first:
                first.append(module)
            return (args[0].detach() + (instead - instead.detach()), *args[1:])

    handles = [net.register_forward_pre_hook(start)]
    handles += [m.register_forward_pre_hook(enter) for m in net.modules() if m is not net and _has_weights(m)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _left(net: nn.Module) -> Iterator[list[Tensor]]:
    """The outputs of linear layers and convolutions while the network runs."""
    outputs: list[Tensor] = []

    def leave(module: nn.Module, args: tuple[Any, ...], out: object) -> None:  # noqa: ARG001
        if isinstance(out, Tensor):
            outputs.append(out.flatten(1))

    handles = [m.register_forward_hook(leave) for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _has_weights(module: nn.Module) -> bool:
    return next(module.parameters(), None) is not None
