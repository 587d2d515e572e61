"""Largest eigenvalue of the Hessian of the loss with respect to the pixels, by Lanczos with Hessian-vector products
(Lanczos 1950; Pearlmutter 1994 for the products; Moosavi-Dezfooli et al. 2019, arXiv:1811.09716, for its meaning)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from medrobust import seeds
from medrobust.classifier import Classifier, pad
from medrobust.images import Images, Labels, PerImage, check_images
from medrobust.seeds import Id
from medrobust.threat import Goal, Untargeted

STEPS = 10
"""Steps of Lanczos' method. With k classes and a piecewise linear network the Hessian has rank k - 1: two classes need
two steps."""

Product = Callable[[Tensor], Tensor]
"""(n, d) vectors to (n, d) Hessian-vector products, row by row."""


class Curvature(NamedTuple):
    """Per image, float64 (n,); the numbers are to be multiplied by exp(log_scale)."""

    top: PerImage
    """Largest eigenvalue. NaN where the network has no second derivative or something is not finite."""
    error: PerImage
    """An eigenvalue lies within this of ``top``; 0 where Lanczos has found all it can."""
    log_scale: PerImage

    @property
    def value(self) -> PerImage:
        """Largest eigenvalue in nats per squared L2 unit (pixels in [0, 1])."""
        return self.top * self.log_scale.exp()


def curvature(
    classifier: Classifier,
    images: Images,
    labels: Labels,
    *,
    steps: int = STEPS,
    seed: int = 0,
    ids: Sequence[Id] | None = None,
) -> Curvature:
    """Curvature of the cross-entropy of ``labels`` at images (n, c, h, w) in [0, 1]; the start is keyed by (seed, id).

    The second derivative is the exact one: across the kinks of ReLU it is 0, so what is left comes from the softmax
    and from smooth activations.
    """
    images = check_images(images)
    ids = list(range(len(images)) if ids is None else ids)
    goal = Untargeted(labels).prepare(classifier.head, len(classifier.classes), len(images), classifier.device)
    parts: list[Curvature] = []
    # attention kernels that are fast have no second derivative
    with classifier.borrowed(), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        for rows in torch.arange(len(images)).split(classifier.batch_size(images.shape)):
            here = images[rows].to(classifier.device)
            start = seeds.normal(seed, "lanczos", [ids[i] for i in rows.tolist()], here.shape[1:])
            product, log_scale = _hessian(classifier, here, goal.take(rows.to(classifier.device)))
            # padded like the images: in which order a row is added up must not depend on how many there are
            start = pad(start, classifier.fit(len(here), images.shape)).flatten(1)
            top, error = lanczos(product, start.to(classifier.device), steps)
            parts.append(Curvature(top[: len(here)].cpu(), error[: len(here)].cpu(), log_scale.cpu()))
    return Curvature(*(torch.cat(column) for column in zip(*parts, strict=True)))


def _hessian(classifier: Classifier, images: Images, goal: Goal) -> tuple[Product, PerImage]:
    """Products (padded rows) with the Hessian of each row's cross-entropy over exp(log_scale), of moderate size."""
    n = len(images)
    at = pad(images, classifier.fit(n, images.shape)).detach().requires_grad_()
    logits = classifier(at)[:n]
    with torch.enable_grad():
        leaf = logits.detach().double().requires_grad_()
        value = goal.cross_entropy(classifier.head, leaf)
        (pull,) = torch.autograd.grad(value.sum(), leaf)
    log_scale = value.detach() + pull.abs().amax(1).log()
    loss = (goal.cross_entropy(classifier.head, logits.double()) - log_scale.nan_to_num(0.0, 0.0, 0.0)).exp()
    gradient = None
    if logits.requires_grad:
        (gradient,) = torch.autograd.grad(loss.sum(), at, create_graph=True, allow_unused=True)

    def product(vectors: Tensor) -> Tensor:
        if gradient is None or not gradient.requires_grad:
            return torch.zeros_like(vectors)
        along = vectors.view(at.shape)
        try:
            (out,) = torch.autograd.grad(gradient, at, along, retain_graph=True, allow_unused=True)
        except RuntimeError as error:  # torch has no second derivative of some activations, such as hardsigmoid
            if "is not implemented" not in str(error):
                raise
            return torch.full_like(vectors, torch.nan)
        return torch.zeros_like(vectors) if out is None else out.flatten(1).detach()

    return product, log_scale


EXHAUSTED = 1e-5
"""A new direction shorter than this, relative to the largest eigenvalue seen, is rounding."""


@torch.no_grad()
def lanczos(product: Product, start: Tensor, steps: int) -> tuple[PerImage, PerImage]:
    """(largest eigenvalue, error bound), float64 (n,), of n symmetric matrices at once, one start (n, d) each.

    Full reorthogonalisation. A row whose Krylov space is exhausted stops there, whatever the others do, so that its
    numbers do not depend on them.
    """
    n, d = start.shape
    steps = min(steps, d)
    v = start / start.norm(dim=1, keepdim=True)
    basis, alphas, betas = [v], list[Tensor](), list[Tensor]()
    alive, largest = torch.ones(n, dtype=torch.bool, device=start.device), torch.zeros(n, device=start.device)
    for k in range(steps):
        with torch.enable_grad():
            w = product(basis[k])
        alpha = (w * basis[k]).sum(1)
        # a row that is over repeats its first entry, which lies between its eigenvalues: the largest stays the largest
        alphas.append(torch.where(alive, alpha, alphas[0] if alphas else alpha))
        largest = torch.maximum(largest, w.norm(dim=1))
        for _ in range(2):  # once is not enough in float32
            for q in basis:
                w = w - (w * q).sum(1, keepdim=True) * q
        beta = w.norm(dim=1)
        alive = alive & (beta > EXHAUSTED * largest)
        betas.append(torch.where(alive, beta, 0.0))
        if not alive.any() or k == steps - 1:
            break
        basis.append(torch.where(alive[:, None], w / beta[:, None].clamp_min(1e-30), 0.0))
    unused = steps - len(alphas)
    alphas, betas = alphas + alphas[:1] * unused, betas + [torch.zeros_like(betas[0])] * unused
    return _ritz(torch.stack(alphas, 1).double(), torch.stack(betas, 1).double())


def _ritz(alphas: Tensor, betas: Tensor) -> tuple[PerImage, PerImage]:
    """Largest eigenvalue of the tridiagonal matrices, and how far an eigenvalue of the whole can be from it."""
    finite = torch.isfinite(alphas).all(1) & torch.isfinite(betas).all(1)
    matrix = torch.diag_embed(alphas.nan_to_num(0.0, 0.0, 0.0))
    off = torch.diag_embed(betas.nan_to_num(0.0, 0.0, 0.0)[:, :-1], 1)
    values, vectors = torch.linalg.eigh(matrix + off + off.mT)
    error = betas[:, -1] * vectors[:, -1, -1].abs()
    return torch.where(finite, values[:, -1], torch.nan), torch.where(finite, error, torch.nan)
