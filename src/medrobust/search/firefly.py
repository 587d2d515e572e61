"""Firefly algorithm (Yang 2009, arXiv:1003.1466)."""

from __future__ import annotations

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.search.moves import take
from medrobust.search.optimiser import Optimiser, Run, Search


class FA(Optimiser):
    """Firefly i moves towards every brighter firefly j, the more the nearer it is.

    attraction: beta_0. absorption: gamma, with distances in units of the box's diagonal (the paper's 1 / L^2).
    noise: alpha, as a share of the box's width; falls to a ten-thousandth over the budget, as in the author's program.
    evaluate: "move" (the paper's figure 1: every move is evaluated, counted, and seen by those that follow), or
        "generation" (the author's program: all moves of a generation are made by the light of the last one).
    With "move" a step asks for one point a seed: n fireflies spend about n^2 / 2 evaluations a generation.
    """

    title = "Firefly"
    source = "Yang 2009, arXiv:1003.1466"

    def __init__(
        self,
        population: int = 32,
        attraction: float = 1.0,
        absorption: float = 1.0,
        noise: float = 0.25,
        evaluate: str = "move",
    ) -> None:
        if evaluate not in ("move", "generation"):
            raise InputError(f'evaluate must be "move" or "generation", got {evaluate!r}')
        self.population, self.attraction, self.absorption = population, attraction, absorption
        self.noise, self.evaluate = noise, evaluate

    def search(self, run: Run) -> Search:
        run.state.x, run.state.f = yield run.first(self.population)
        yield from self.moves(run) if self.evaluate == "move" else self.generations(run)

    def moves(self, run: Run) -> Search:
        s, P = run.state, self.population
        s.x, s.f = s.x.clone(), s.f.clone()  # changed in place below, and the caller holds the points that it was asked
        s.at = torch.full((run.rows, 1), -1, device=run.device)  # the pair (i, j) that moved last, as i P + j
        pairs = torch.arange(P * P, device=run.device)
        while True:
            brighter = (s.f[:, None] < s.f[:, :, None]).flatten(1)
            turn = torch.where(pairs > s.at, pairs, pairs + P * P)  # those behind come in the next generation
            # where all shine alike, the pair is (0, 0): a random step
            s.at = torch.where(brighter, turn, 2 * P * P).amin(1, keepdim=True) % (P * P)
            s.i = s.at // P
            x, f = yield self.towards(run, take(s.x, s.i), take(s.x, s.at % P))
            s.x.scatter_(1, s.i[:, :, None].expand_as(x), x)
            s.f.scatter_(1, s.i, f)

    def generations(self, run: Run) -> Search:
        s = run.state
        while True:
            x = s.x
            for j in range(self.population):
                moved = self.towards(run, x, s.x[:, j : j + 1])
                x = torch.where((s.f[:, j : j + 1] < s.f)[:, :, None], moved, x)
            s.x, s.f = yield x

    def towards(self, run: Run, x: Tensor, other: Tensor) -> Tensor:
        toward = other - x
        unit = toward / run.width.clamp(min=torch.finfo(x.dtype).tiny)
        distance2 = (unit * unit).mean(2, keepdim=True)
        beta = self.attraction * (-self.absorption * distance2).exp()
        alpha = self.noise * (1e-4 / 0.9) ** run.progress
        return x + beta * toward + alpha * (run.draws.uniform(*x.shape[1:]) - 0.5) * run.width
