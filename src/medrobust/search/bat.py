"""Bat algorithm (Yang 2010, arXiv:1004.4170)."""

from __future__ import annotations

import math

import torch

from medrobust.search.optimiser import Optimiser, Search, SearchRun


class BA(Optimiser):
    """Bats fly with a random frequency relative to the best, or step around the best; loud ones accept more.

    slowest, fastest: range of the frequency. loudness: A_0; pulse: r_0; cooling: alpha; warming: gamma.
    step: length of the local walk at loudness 1, as a share of the box's width.
    """

    title = "Bat"
    source = "Yang 2010, arXiv:1004.4170"

    def __init__(
        self,
        population: int = 32,
        slowest: float = 0.0,
        fastest: float = 2.0,
        loudness: float = 1.0,
        pulse: float = 0.5,
        cooling: float = 0.9,
        warming: float = 0.9,
        step: float = 0.1,
    ) -> None:
        self.population, self.slowest, self.fastest = population, slowest, fastest
        self.loudness, self.pulse, self.cooling, self.warming, self.step = loudness, pulse, cooling, warming, step

    def search(self, run: SearchRun) -> Search:
        s, P, D = run.state, self.population, run.space.dims
        s.x, s.f = yield run.first(P)
        s.velocity = torch.zeros_like(s.x)
        s.loudness = torch.full_like(s.x[:, :, 0], self.loudness)
        s.pulse = torch.zeros_like(s.loudness)
        t = 0
        while True:
            best = run.best_x[:, None]
            frequency = self.slowest + (self.fastest - self.slowest) * run.draws.uniform(P, 1)
            s.velocity = s.velocity + (s.x - best) * frequency
            walk = (2 * run.draws.uniform(P, D) - 1) * s.loudness.mean(1)[:, None, None] * self.step * run.width
            local = run.draws.uniform(P, 1) > s.pulse[:, :, None]
            x, f = yield torch.where(local, best + walk, s.x + s.velocity)
            t += 1
            accepted = (f <= s.f) & (run.draws.uniform(P) < s.loudness)
            s.x = torch.where(accepted[:, :, None], x, s.x)
            s.f = torch.where(accepted, f, s.f)
            s.loudness = torch.where(accepted, s.loudness * self.cooling, s.loudness)
            s.pulse = torch.where(accepted, self.pulse * (1 - math.exp(-self.warming * t)), s.pulse)
