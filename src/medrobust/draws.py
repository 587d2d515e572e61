"""Answers of a random network averaged over draws: expectation over transformations (Athalye et al. 2018,
arXiv:1802.00420).

Each draw has its own seed, the same for every image: what a row gets does not depend on its batch, and the mean is a
fixed function of the images, with a gradient.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch._C._functorch import get_unwrapped, is_batchedtensor
from torch.utils.checkpoint import checkpoint

from medrobust import seeds
from medrobust.images import Images, Logits

LARGE = 2**24
"""Pixels of all draws together from which activations are computed again on the way back instead of kept."""
ALIKE = 1e-3
"""Difference between rows computed together and one by one that is rounding, as a share of the largest output."""

Outputs = Callable[[Images], Logits]


@dataclass(frozen=True)
class Draws:
    """count: answers to each image. purpose: names their seeds, which depend on nothing else: another purpose, other
    draws. probable: average probabilities, else their logarithms.
    """

    count: int
    purpose: str
    probable: bool = False

    def each(self, outputs: Outputs, images: Images, together: bool) -> Tensor:
        """(count, n, k): the outputs of every draw. together: rows may share a pass (``alike``)."""
        large = self.count * images.numel() > LARGE and images.requires_grad and torch.is_grad_enabled()

        def drawn(given: Images, number: int) -> Logits:
            with seeded(self.purpose, number, given.device):
                return _together(outputs, given) if together else _alone(outputs, given, self.purpose, number)

        if large:
            again = partial(checkpoint, drawn, images, use_reentrant=False, preserve_rng_state=False)
            return torch.stack([again(i) for i in range(self.count)])
        return torch.stack([drawn(images, i) for i in range(self.count)])


def alike(outputs: Outputs, images: Images) -> bool:
    """Whether rows that share a pass, and its draw, get the outputs and gradients that they get one by one."""
    found = []
    for run in (_together, lambda o, x: _alone(o, x, "alike", 0)):
        leaf = images.detach().clone().requires_grad_()
        try:
            with torch.enable_grad(), seeded("alike", 0, images.device):
                out = run(outputs, leaf)
                (gradient,) = torch.autograd.grad(out.sum(), leaf) if out.requires_grad else (torch.zeros_like(leaf),)
        except Exception:  # code that does not run under vmap, whatever it raises
            return False
        found.append((out.detach(), gradient))
    return all(bool(((a - b).abs() <= ALIKE * b.abs().max()).all()) for a, b in zip(*found, strict=True))


def needs_gradient(tensor: Tensor) -> bool:
    """``requires_grad``, of one image among those that share a pass, too: there the whole batch knows."""
    while is_batchedtensor(tensor):
        tensor = get_unwrapped(tensor)
    return tensor.requires_grad


def _together(outputs: Outputs, images: Images) -> Logits:
    """One pass whose random numbers are the same for each row, as if it were alone."""
    return torch.vmap(lambda image: outputs(image[None])[0], randomness="same")(images)


def _alone(outputs: Outputs, images: Images, purpose: str, number: int) -> Logits:
    rows = []
    for image in images.split(1):
        with seeded(purpose, number, images.device):
            rows.append(outputs(image))
    return torch.cat(rows)


@contextmanager
def seeded(purpose: str, number: int, device: torch.device) -> Iterator[None]:
    """The global generators of torch, numpy and Python with a seed of that draw; as they were afterwards."""
    seed = int(seeds.generator(0, f"draws/{purpose}", number).integers(2**31))
    state, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 (networks may use it)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed keeps a list of calls for GPUs not yet in use
        if device.type == "cuda":
            torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        try:
            yield
        finally:
            random.setstate(state)
            np.random.set_state(legacy)  # noqa: NPY002
