"""Adversarial weight perturbation (Wu et al. 2020, arXiv:2004.05884)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def moved(net: nn.Module, loss: Tensor, share: float) -> Iterator[None]:
    """The weights of ``net`` up the gradient of ``loss``, each tensor by ``share`` of its length; back afterwards.

    Biases and BatchNorm stay, and BatchNorm's running moments are as they were before.
    """
    weights = [p for p in net.parameters() if p.ndim > 1 and p.requires_grad]
    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
    before = [w.detach().clone() for w in weights]
    moments = [(b, b.clone()) for b in net.buffers()]
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients, strict=True):
            if gradient is not None:
                weight.add_(share * weight.norm() * gradient / gradient.norm().clamp_min(1e-12))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, kept in zip(weights, before, strict=True):
                weight.copy_(kept)
            for buffer, kept in moments:
                buffer.copy_(kept)
