"""Gravitational search (Rashedi, Nezamabadi-pour & Saryazdi 2009, doi:10.1016/j.ins.2009.03.004)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from medrobust.search.moves import WORST, each, ranked, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun


class GSA(Optimiser):
    """Points attract each other, good ones more; fewer and fewer of the best attract the others.

    gravity: G_0 as a share of the box's width (the paper's 100 in a box of width 200).
    fading: alpha, G falls with exp(-alpha t / T). The paper's 20 goes with its 1000 generations; in shorter runs the
        points would freeze before they have moved, so the default is a fifteenth of the generations, at most 20.
    One random factor a pair of points, as the paper's rand_j.
    A component that leaves the box is drawn anew, as in the authors' program.
    """

    title = "Gravitational search"
    source = "Rashedi et al. 2009, doi:10.1016/j.ins.2009.03.004"

    def __init__(self, population: int = 32, gravity: float = 0.5, fading: float | None = None) -> None:
        self.population, self.gravity, self.fading = population, gravity, fading

    def search(self, run: SearchRun) -> Search:
        s, P = run.state, self.population
        s.x, s.f = yield run.first(P)
        s.velocity = torch.zeros_like(s.x)
        fading = min(20.0, run.span / P / 15) if self.fading is None else self.fading
        while True:
            G = self.gravity * math.exp(-fading * run.progress)
            kept = max(1, round(P * (1 - 0.98 * run.progress)))
            pull = self.pull(run, s.x, masses(s.f), ranked(s.f)[:, :kept])
            s.velocity = run.draws.uniform(*s.x.shape[1:]) * s.velocity + G * pull
            new_x = s.x + s.velocity
            outside = (new_x < run.low) | (new_x > run.high)
            s.x, s.f = yield torch.where(outside, run.anywhere(P), new_x)

    def pull(self, run: SearchRun, x: Tensor, mass: Tensor, heavy: Tensor) -> Tensor:
        """(S, P, D): sum over the heavy points j of rand_j M_j (x_j - x_i) / R_ij, in units of the box."""
        width = run.width.clamp(min=torch.finfo(x.dtype).tiny)
        unit = (x - run.low) / width
        attractor = take(unit, heavy)
        distance = each(lambda a, b: torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist"), unit, attractor)
        chance = run.draws.uniform(*distance.shape[1:])
        weight = chance * take(mass, heavy)[:, None].to(x.dtype) / (distance + torch.finfo(x.dtype).eps)
        return (each(torch.matmul, weight, attractor) - weight.sum(2, keepdim=True) * unit) * run.width


def masses(f: Tensor) -> Tensor:
    """(S, P): shares of the whole mass; the worst weighs nothing."""
    best = f.amin(1, keepdim=True)
    worst = torch.where(f < WORST, f, best).amax(1, keepdim=True)
    m = torch.where(worst > best, (worst - f).clamp(min=0) / (worst - best).clamp(min=1e-300), 1.0)
    return m / m.sum(1, keepdim=True)
