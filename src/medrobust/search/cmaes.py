"""CMA-ES (Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772), and its separable variant
(Ros & Hansen 2008, doi:10.1007/978-3-540-87700-4_30), whose covariance is a diagonal: linear in the dimensions.

Constants, names and the negative weights are the tutorial's (table 1). Points outside the box are folded back into it
as by mirrors before they are evaluated, so that the model itself knows no bounds; all axes are scaled by the box.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.search.moves import each, mirrored, ranked, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun

WIDEST = 1 / 3
"""Largest standard deviation, in widths of the box (pycma's): a wider one, folded, is uniform and learns nothing."""


class Constants:
    """Table 1 of the tutorial for ``lam`` points in n dimensions. ``diagonal``: the learning rates of sep-CMA-ES."""

    def __init__(self, lam: int, n: int, diagonal: bool) -> None:
        raw = torch.log(torch.tensor((lam + 1) / 2, dtype=torch.float64)) - torch.arange(1, lam + 1).double().log()
        self.mu = lam // 2
        positive, negative = raw[: self.mu], raw[self.mu :]
        self.mu_eff = float(positive.sum() ** 2 / (positive**2).sum())
        self.c_sigma = (self.mu_eff + 2) / (n + self.mu_eff + 5)
        self.d_sigma = 1 + 2 * max(0.0, math.sqrt((self.mu_eff - 1) / (n + 1)) - 1) + self.c_sigma
        self.c_c = (4 + self.mu_eff / n) / (n + 4 + 2 * self.mu_eff / n)
        faster = (n + 2) / 3 if diagonal else 1.0  # so many fewer numbers are learnt
        self.c_1 = min(1.0, 2 / ((n + 1.3) ** 2 + self.mu_eff) * faster)
        c_mu = 2 * (0.25 + self.mu_eff + 1 / self.mu_eff - 2) / ((n + 2) ** 2 + self.mu_eff)
        self.c_mu = min(1 - self.c_1, c_mu * faster)
        self.chi_n = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))
        mu_eff_minus = float(negative.sum() ** 2 / (negative**2).sum()) if len(negative) else 0.0
        alpha = min(
            1 + self.c_1 / self.c_mu,
            1 + 2 * mu_eff_minus / (self.mu_eff + 2),
            (1 - self.c_1 - self.c_mu) / (n * self.c_mu),
        )
        below = float(negative.abs().sum()) or 1.0
        self.weights = torch.cat((positive / positive.sum(), negative * (max(0.0, alpha) / below)))


class CMAES(Optimiser):
    """A normal distribution whose mean, size and covariance learn from the ranks of its points.

    population: lambda; by default 4 + 3 ln D.
    sigma: first standard deviation as a share of the box's width.
    The first mean is the best of the points that the caller starts with (evaluated), otherwise a random point.
    """

    title = "CMA-ES"
    source = "Hansen 2016, arXiv:1604.00772"
    smallest = 0  # stands for 4 + 3 ln D
    diagonal = False

    def __init__(self, population: int | None = None, sigma: float = 0.3) -> None:
        if population is not None and population < 2:
            raise InputError(f"CMA-ES needs a population of at least 2, got {population}")
        self.population, self.sigma = population or 0, sigma

    def least(self, dims: int) -> int:
        return self.population or 4 + int(3 * math.log(dims))

    def search(self, run: SearchRun) -> Search:
        n, lam = run.space.dims, self.least(run.space.dims)
        k = Constants(lam, n, self.diagonal)
        weights = k.weights.to(run.device)
        s = run.state
        first = run.first(1)
        if run.given is not None:
            yield run.given
            first = run.best_x[:, None]
        s.mean = ((first - run.low) / run.width.clamp(min=torch.finfo(first.dtype).tiny))[:, 0].double()
        s.sigma = torch.full_like(s.mean[:, :1], self.sigma)
        s.path_sigma, s.path_c = torch.zeros_like(s.mean), torch.zeros_like(s.mean)
        self.isotropic(run)
        generation = 0
        while True:
            z = run.draws.normal(lam, n).double()
            s.z, s.y = z, self.stretched(run, z)
            unit = s.mean[:, None] + s.sigma[:, :, None] * s.y
            x, f = (
                yield run.low
                + mirrored(unit, torch.zeros_like(unit), torch.ones_like(unit)).to(run.low.dtype) * run.width
            )
            del x
            generation += 1
            order = ranked(f)
            y, z = take(s.y, order), take(s.z, order)
            step = weighted(y[:, : k.mu], weights[: k.mu])
            s.mean = s.mean + s.sigma * step
            white = self.rotated(run, weighted(z[:, : k.mu], weights[: k.mu]))
            s.path_sigma = (1 - k.c_sigma) * s.path_sigma + math.sqrt(k.c_sigma * (2 - k.c_sigma) * k.mu_eff) * white
            length = (s.path_sigma**2).sum(1, keepdim=True).sqrt()
            fresh = math.sqrt(1 - (1 - k.c_sigma) ** (2 * generation))
            h = (length / fresh < (1.4 + 2 / (n + 1)) * k.chi_n).double()
            s.path_c = (1 - k.c_c) * s.path_c + h * math.sqrt(k.c_c * (2 - k.c_c) * k.mu_eff) * step
            growth = ((k.c_sigma / k.d_sigma) * (length / k.chi_n - 1)).clamp(max=1).exp()
            widest = WIDEST / self.variances(run).amax(1, keepdim=True).sqrt()
            s.sigma = torch.minimum((s.sigma * growth).clamp(min=1e-150), widest)
            lengths = (z**2).sum(2)  # |C^-1/2 y|^2, for z is what y was before it was stretched
            w = torch.where(weights >= 0, weights, weights * n / lengths.clamp(min=1e-300))
            kept = 1 + k.c_1 * (1 - h) * k.c_c * (2 - k.c_c) - k.c_1 - k.c_mu * float(weights.sum())
            self.learn(run, k, kept, y, w, generation)

    # the covariance C = B diag(d^2) B'

    def isotropic(self, run: SearchRun) -> None:
        s = run.state
        s.C = torch.eye(s.mean.shape[1], dtype=torch.float64, device=run.device).repeat(run.rows, 1, 1)
        s.B, s.d = s.C.clone(), torch.ones_like(s.mean)

    def variances(self, run: SearchRun) -> Tensor:
        C: Tensor = run.state.C
        return C.diagonal(dim1=1, dim2=2)

    def stretched(self, run: SearchRun, z: Tensor) -> Tensor:
        """B d z: standard normal points (S, P, D) made to follow C."""
        s = run.state
        return each(torch.matmul, z * s.d[:, None], s.B.transpose(1, 2))

    def rotated(self, run: SearchRun, z: Tensor) -> Tensor:
        """B z = C^-1/2 B d z."""
        return each(torch.mv, run.state.B, z)

    def learn(self, run: SearchRun, k: Constants, kept: Tensor, y: Tensor, w: Tensor, generation: int) -> None:
        s = run.state
        rank_one = s.path_c[:, :, None] * s.path_c[:, None]
        rank_mu = each(torch.matmul, y.transpose(1, 2) * w[:, None], y)
        C = kept[:, :, None] * s.C + k.c_1 * rank_one + k.c_mu * rank_mu
        s.C = (C + C.transpose(1, 2)) / 2
        n = C.shape[1]
        if generation % max(1, int(1 / (10 * n * (k.c_1 + k.c_mu)))) == 0:
            pairs = [torch.linalg.eigh(c.clone()) for c in s.C]
            s.B = torch.stack([vectors for _, vectors in pairs])
            squares = torch.stack([values for values, _ in pairs])
            s.d = squares.clamp(min=1e-14 * squares[:, -1:].clamp(min=1e-280)).sqrt()


class SepCMAES(CMAES):
    """CMA-ES with a diagonal covariance: for many dimensions, or few evaluations."""

    title = "Separable CMA-ES"
    source = "Ros & Hansen 2008, doi:10.1007/978-3-540-87700-4_30"
    diagonal = True

    def isotropic(self, run: SearchRun) -> None:
        run.state.C = torch.ones_like(run.state.mean)

    def variances(self, run: SearchRun) -> Tensor:
        C: Tensor = run.state.C
        return C

    def stretched(self, run: SearchRun, z: Tensor) -> Tensor:
        scaled: Tensor = z * run.state.C.sqrt()[:, None]
        return scaled

    def rotated(self, run: SearchRun, z: Tensor) -> Tensor:  # noqa: ARG002  # the axes are their own
        return z

    def learn(self, run: SearchRun, k: Constants, kept: Tensor, y: Tensor, w: Tensor, generation: int) -> None:
        del generation  # there is nothing to decompose
        s = run.state
        C = kept * s.C + k.c_1 * s.path_c**2 + k.c_mu * (w[:, :, None] * y**2).sum(1)
        s.C = C.clamp(min=1e-280)


def weighted(points: Tensor, weights: Tensor) -> Tensor:
    """(S, D): the weighted sum of points (S, K, D)."""
    return (points * weights[:, None]).sum(1)
