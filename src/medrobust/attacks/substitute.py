"""Another way back through a network: the outputs are its own, to the bit, the gradient is that of a stand-in.

What attacks need where a network's gradient does not describe it (masked gradients): BPDA (Athalye et al. 2018,
arXiv:1802.00420), the mean over noise, and differences along smooth directions (NES, Ilyas et al. 2018,
arXiv:1804.08598, on a fixed orthonormal basis).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from medrobust import seeds
from medrobust.attacks.apgd import APGD
from medrobust.attacks.derivative import Ends, derivative
from medrobust.attacks.engine import run
from medrobust.attacks.lowfreq import LowFrequency
from medrobust.attacks.straight_through import StraightThrough, functions_as_identity, resized, without_hooks
from medrobust.classifier import Classifier
from medrobust.images import Images, Labels, Logits
from medrobust.seeds import Id
from medrobust.threat import Linf, Untargeted, margin

Outputs = Callable[[Images], Logits]


@dataclass(frozen=True)
class Substitute:
    """hooks: without the hooks that change gradients. functions: straight through rounding, comparisons, ``detach``.
    custom: functions with a backward of their own as the identity. entry: what happens to images before the first
    layer as the identity. exit: what happens to the outputs behind the last linear layer as the identity.
    noise: the mean over ``DRAWS`` images with normal noise of that standard deviation, in shares of the pixel range.
    frequencies: differences along that many cosines a side and channel, instead of backpropagation.
    agrees: whether the gradient agrees with finite differences (``derivative``).
    """

    hooks: bool = False
    functions: bool = False
    custom: bool = False
    entry: bool = False
    exit: bool = False
    noise: float = 0.0
    frequencies: int = 0
    agrees: bool = False

    @property
    def text(self) -> str:
        """What is done on the way back, for a sentence."""
        said = [
            *(["without the hooks on gradients"] if self.hooks and not self.functions else []),
            *(["straight through rounding, comparisons and cut gradients"] if self.functions else []),
            *(["custom derivatives as the identity"] if self.custom else []),
            *(["what comes before the first layer as the identity"] if self.entry else []),
            *(["what comes after the last layer as the identity"] if self.exit else []),
            *([f"the mean over {DRAWS} images with noise of {255 * self.noise:g}/255"] if self.noise else []),
            *([f"differences along {self.frequencies} x {self.frequencies} cosines"] if self.frequencies else []),
        ]
        return ", ".join(said)

    def logits(self, net: nn.Module, outputs: Outputs, images: Images) -> Logits:
        """``outputs(images)`` with the gradient of the stand-in. outputs: runs ``net`` on images in [0, 1]."""
        if self.frequencies:
            return _Differences.apply(images, outputs, self.frequencies)  # type: ignore[no-any-return]
        with torch.no_grad():
            true = outputs(images.detach())
        if not self.noise:
            soft = self._soft(net, outputs, images)
        else:
            shape = images.shape[1:]
            draws = seeds.normal(0, "substitute/noise", list(range(DRAWS)), shape).to(images)
            soft = torch.stack([self._soft(net, outputs, images + self.noise * draw) for draw in draws]).mean(0)
        return true + (soft - soft.detach())

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
            out = outputs(images)
        fitting = [value for value in last if value.shape == out.shape]
        return torch.stack(fitting).float().mean(0) if fitting else out


DRAWS = 8
"""Images with noise over which a gradient is averaged."""
STEP = 4 / 255
"""Half the length, root mean square, of a difference along a cosine."""


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


# -- which stand-in ---------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """How a stand-in did. cosine: of predicted and true changes (``derivative``). fooled: share of the images and sizes
    at which a short attack through it fooled the network; NaN where none was made."""

    substitute: Substitute | None
    cosine: float
    fooled: float = math.nan


WITHOUT_HOOKS = Substitute(hooks=True)
THROUGH = replace(WITHOUT_HOOKS, functions=True)
CUSTOM = replace(THROUGH, custom=True)
CANDIDATES = (
    *(WITHOUT_HOOKS, THROUGH, CUSTOM),
    *(replace(CUSTOM, entry=True), replace(CUSTOM, exit=True), replace(CUSTOM, entry=True, exit=True)),
)
"""From what changes least to what changes most."""
NOISE = 8 / 255
FREQUENCIES = 8
STEPS, SIZES = 10, (1 / 255, 4 / 255, 16 / 255)
"""Of the short attack, in Linf."""


def choose(
    classifier: Classifier, images: Images, labels: Labels, *, seed: int = 0, ids: Sequence[Id] | None = None
) -> list[Trial]:
    """Stand-ins for the gradient of ``classifier``, the best one last.

    The first whose derivative agrees with finite differences on ``images`` (n, c, h, w) is taken. Where none does,
    that through which a short attack at ``SIZES`` fools most; then also noise is tried on it, and differences, and the
    network's own gradient (None) stays where none does better.
    """
    ends = Ends(classifier, images, seed, list(range(len(images)) if ids is None else ids))
    trials = []
    for candidate in CANDIDATES:
        try:
            found = derivative(classifier.changed(substitute=candidate), images, seed=seed, ids=ids, ends=ends)
        except Exception:  # code of the network's own may fail where what it calls is changed: then this is no way
            continue
        trials.append(Trial(replace(candidate, agrees=bool(found.holds)), found.cosine))
        if found.holds:
            return trials
    attacked = _Attacked(classifier, images, labels, seed, ids)
    trials = [attacked.trial(t) for t in (Trial(None, math.nan), *_different(trials))]
    best = max(trials, key=lambda t: t.fooled)  # of several the first, which changes least
    further = [replace(best.substitute or Substitute(), noise=NOISE), Substitute(frequencies=FREQUENCIES)]
    for candidate in further:
        found = derivative(classifier.changed(substitute=candidate), images, seed=seed, ids=ids, ends=ends)
        # differences agree with the differences that they are compared with, whatever the network does between them
        agrees = bool(found.holds) and not candidate.frequencies
        trials.append(attacked.trial(Trial(replace(candidate, agrees=agrees), found.cosine)))
    best = max(trials, key=lambda t: t.fooled)
    return [*(t for t in trials if t is not best), best]


def _different(trials: list[Trial]) -> list[Trial]:
    """Without those whose gradient is that of one before: it predicts the same changes."""
    return [t for i, t in enumerate(trials) if not any(t.cosine == before.cosine for before in trials[:i])]


class _Attacked:
    """The short attack of one classifier through several stand-ins."""

    def __init__(
        self, classifier: Classifier, images: Images, labels: Labels, seed: int, ids: Sequence[Id] | None
    ) -> None:
        self.classifier, self.images, self.goal = classifier, images, Untargeted(labels)
        self.seed, self.ids = seed, ids

    def trial(self, trial: Trial) -> Trial:
        """With its share of fooled images."""
        through = self.classifier.changed(substitute=trial.substitute)
        attack, rates = APGD(STEPS, loss=margin), []
        for size in SIZES:
            done = run(attack, through, self.images, self.goal, Linf(size), seed=self.seed, ids=self.ids)
            rates.append(float(done.reached.float().mean()))
        return trial._replace(fooled=sum(rates) / len(rates))
