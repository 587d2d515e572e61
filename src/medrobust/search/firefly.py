"""Firefly algorithm (Yang 2009, arXiv:1003.1466)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from medrobust.errors import InputError
from medrobust.search.moves import ranked, take
from medrobust.search.optimiser import Optimiser, Search, SearchRun

BLOCK = 8
"""Steps of a generation whose noise is drawn at once: few enough to stay in the cache."""


class FA(Optimiser):
    """Firefly i moves towards every brighter firefly j, the more the nearer it is.

    attraction: beta_0. absorption: gamma, with distances in units of the box's diagonal (the paper's 1 / L^2).
    noise: alpha, as a share of the box's width; falls to a ten-thousandth over the budget, as in the author's program.
    evaluate: "generation" (the author's program, firefly_simple.m in Yang's Nature-Inspired Metaheuristic Algorithms,
        Luniver 2008 and 2010: fireflies are ranked, each moves towards where the brighter ones were, the brightest
        last, and is evaluated once, after all its moves), or "move" (the paper's figure 1: every move is evaluated,
        counted, and seen by those that follow).
    With "move" a step asks for one point a seed: n fireflies spend about n^2 / 2 evaluations a generation.
    Where all shine alike, they wander (rule 2 of the paper).
    """

    title = "Firefly"
    source = "Yang 2009, arXiv:1003.1466"

    def __init__(
        self,
        population: int = 32,
        attraction: float = 1.0,
        absorption: float = 1.0,
        noise: float = 0.25,
        evaluate: str = "generation",
    ) -> None:
        if evaluate not in ("move", "generation"):
            raise InputError(f'evaluate must be "move" or "generation", got {evaluate!r}')
        self.population, self.attraction, self.absorption = population, attraction, absorption
        self.noise, self.evaluate = noise, evaluate

    def search(self, run: SearchRun) -> Search:
        run.state.x, run.state.f = yield run.first(self.population)
        yield from self.moves(run) if self.evaluate == "move" else self.generations(run)

    def moves(self, run: SearchRun) -> Search:
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

    def generations(self, run: SearchRun) -> Search:
        s = run.state
        while True:
            s.x, s.f = yield self.flown(run, s.x, s.f)

    def flown(self, run: SearchRun, x: Tensor, f: Tensor) -> Tensor:
        """(S, P, D): each after its moves towards the places of the brighter ones, the brightest last."""
        order = ranked(f).flip(1)  # dimmest first: what moves towards the j-th lies before it
        x, f = take(x, order), take(f, order)
        points, dims = x.shape[1:]
        light = (x - run.low) / run.width.clamp(min=torch.finfo(x.dtype).tiny)
        step = light.diff(dim=1, append=light[:, -1:])
        dimmer = (f[:, :, None] > f[:, None]).to(x.dtype)[..., None]  # those that shine alike do not move
        pull, noise = (self.attraction * dimmer).log(), self.alpha(run) * 2**-16 * dimmer
        toward = torch.zeros_like(x)  # from each to the j-th light; kept instead of places, for it saves a pass
        for j, (bits, on, pulls, shakes) in enumerate(
            zip(self.bits(run, points), step.split(1, 1), pull.unbind(2), noise.unbind(2), strict=True)
        ):
            moving = toward[:, : j + 1]
            far = torch.linalg.vector_norm(moving, dim=2, keepdim=True)
            rest = torch.addcmul(pulls[:, : j + 1], far, far, value=-self.absorption / dims).expm1_()  # beta - 1
            torch.addcmul(on, moving, rest, value=-1, out=moving).addcmul_(bits, shakes[:, : j + 1])
        stays = (f == f[:, -1:])[:, :, None]
        at = light[:, -1:] - toward
        # where all shine alike: a random step
        lost = x + self.alpha(run) * 2**-16 * run.draws.noise(points, dims) * run.width
        return torch.where(stays.all(1, keepdim=True), lost, torch.where(stays, x, run.low + at * run.width))

    def bits(self, run: SearchRun, points: int) -> Iterator[Tensor]:
        """The noise of 1, 2, … ``points`` moves."""
        for first in range(1, points + 1, BLOCK):
            sizes = list(range(first, min(first + BLOCK, points + 1)))
            yield from run.draws.noise(sum(sizes), run.space.dims).split(sizes, 1)

    def towards(self, run: SearchRun, x: Tensor, other: Tensor) -> Tensor:
        toward = other - x
        unit = toward / run.width.clamp(min=torch.finfo(x.dtype).tiny)
        distance2 = (unit * unit).mean(2, keepdim=True)
        beta = self.attraction * (-self.absorption * distance2).exp()
        return x + beta * toward + self.alpha(run) * (run.draws.uniform(*x.shape[1:]) - 0.5) * run.width

    def alpha(self, run: SearchRun) -> float:
        """The noise of now, as a share of the box's width."""
        return self.noise * float((1e-4 / 0.9) ** run.progress)
