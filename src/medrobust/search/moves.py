"""Operations shared by optimisers: choosing rows, ranks, partners, roulette selection, and repair of bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from medrobust.search.draws import Draws

WORST = 1e300
"""The value that optimisers are given in place of infinity, so that differences of values stay finite."""


def take(x: Tensor, index: Tensor) -> Tensor:
    """The points ``index`` (S, K) of x (S, P, D) -> (S, K, D); of values (S, P) -> (S, K)."""
    if x.ndim == 2:
        return x.gather(1, index)
    return x.gather(1, index[:, :, None].expand(-1, -1, x.shape[2]))


def ranked(f: Tensor) -> Tensor:
    """(S, P): the positions of the values from best to worst; of equal values the first comes first."""
    return f.argsort(dim=1, stable=True)


def better(x: Tensor, f: Tensor, trial: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Greedy selection, point by point: the trial where it is no worse."""
    wins = g <= f
    return torch.where(wins[:, :, None], trial, x), torch.where(wins, g, f)


def fittest(x: Tensor, f: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best points, best first."""
    order = ranked(f)[:, :count]
    return take(x, order), take(f, order)


def others(draws: Draws, points: int, count: int) -> Tensor:
    """(S, P, count): for every point that many different others, never itself."""
    index = torch.arange(points, device=draws.device).expand(len(draws.generators), points)
    taken = [index]
    for k in range(count):
        pick = draws.below(points - 1 - k, points)
        for earlier in torch.stack(taken).sort(0).values:  # the k-th of those that are left
            pick = pick + (pick >= earlier)
        taken.append(pick)
    return torch.stack(taken[1:], 2)


def tournament(draws: Draws, f: Tensor, winners: int, size: int) -> Tensor:
    """(S, winners): each the best of ``size`` points drawn with replacement."""
    drawn = draws.below(f.shape[1], winners, size)
    values = f.gather(1, drawn.flatten(1)).view_as(drawn)
    return drawn.gather(2, values.argmin(2, keepdim=True))[:, :, 0]


def roulette(draws: Draws, weights: Tensor, spins: int) -> Tensor:
    """(S, spins): positions drawn in proportion to ``weights`` (S, P) >= 0; all alike where all are 0."""
    wheel = weights.double().cumsum(1)
    total = wheel[:, -1:]
    spin = draws.uniform(spins).double() * total
    at = torch.searchsorted(wheel, spin, right=True).clamp(max=weights.shape[1] - 1)
    uniform = (draws.uniform(spins).double() * weights.shape[1]).long().clamp(max=weights.shape[1] - 1)
    return torch.where(total > 0, at, uniform)


def halfway(trial: Tensor, parent: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """A component that left the box goes halfway from the parent's to the bound that it crossed."""
    trial = torch.where(trial < low, (low + parent) / 2, trial)
    return torch.where(trial > high, (high + parent) / 2, trial)


def mirrored(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Points outside the box folded back into it, as between two mirrors."""
    width = (high - low).clamp(min=torch.finfo(x.dtype).tiny)
    folded = torch.remainder(x - low, 2 * width)
    return low + torch.where(folded > width, 2 * width - folded, folded)


def each(operation: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """``operation`` row by row, on copies: how a product adds up depends on the batch and on where memory begins."""
    return torch.stack([operation(*(part.clone() for part in row)) for row in zip(*tensors, strict=True)])


def levy(draws: Draws, *shape: int, index: float = 1.5) -> Tensor:
    """(S, *shape): steps of a Lévy flight by Mantegna's algorithm (1994, doi:10.1103/PhysRevE.49.4677)."""
    top = math.gamma(1 + index) * math.sin(math.pi * index / 2)
    sigma = (top / (math.gamma((1 + index) / 2) * index * 2 ** ((index - 1) / 2))) ** (1 / index)
    u, v = draws.normal(*shape), draws.normal(*shape)
    steps: Tensor = sigma * u / root(v.abs().clamp(min=torch.finfo(v.dtype).tiny), index)
    return steps


def root(x: Tensor, degree: float) -> Tensor:
    """``x ** (1 / degree)`` of x >= 0. The last bit of torch's power depends on where in memory a number is."""
    return (x.log() / degree).exp()
